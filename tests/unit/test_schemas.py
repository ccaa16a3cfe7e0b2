"""Record shapes."""

from __future__ import annotations

import json

import msgspec
import polars as pl
import pyarrow as pa
import pytest

from flowapp import topics
from flowapp.errors import SchemaError
from flowapp.records import schemas, structs
from flowapp.records.compatibility import lint

NAMES = schemas.names()


def test_every_record_of_every_topic_has_a_schema_file_and_no_file_is_left_over() -> None:
    assert {path.stem for path in schemas.directory().glob("*.avsc")} == set(NAMES)
    assert set(NAMES) == {name for topic in topics.ALL for name in topic.records}


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_keeps_every_rule_and_documents_every_field(name: str) -> None:
    assert lint(schemas.schema(name), name) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_canonical_text_keeps_docs_and_rest_names_and_does_not_depend_on_the_order_of_keys(name: str) -> None:
    text = schemas.canonical_json(name)
    assert json.loads(text) == schemas.schema(name)
    reversed_keys = {**dict(reversed(schemas.schema(name).items()))}
    reversed_keys["fields"] = [dict(reversed(field.items())) for field in reversed_keys["fields"]]
    assert schemas.canonical(reversed_keys) == text
    assert text.isascii()


def test_a_frame_schema_has_the_fields_in_order_with_their_types() -> None:
    assert schemas.frame_schema("Tick") == pl.Schema({"w": pl.Int64, "seq": pl.Int64, "feed": pl.String, "run": pl.String})
    prints = schemas.frame_schema("OptionPrint")
    assert prints["conditions"] == pl.List(pl.String)
    assert [prints["price"], prints["may_sign"], prints["oi"]] == [pl.Float64(), pl.Boolean(), pl.Int64()]
    assert schemas.frame_schema("DeadLetter")["raw"] == pl.Binary


def test_an_arrow_schema_says_what_may_be_null() -> None:
    arrow = schemas.arrow_schema("OptionPrint")
    assert arrow.field("price") == pa.field("price", pa.float64(), nullable=False)
    assert arrow.field("strike") == pa.field("strike", pa.float64(), nullable=True)
    assert arrow.field("conditions").type == pa.list_(pa.string())


def test_a_topic_frame_has_the_columns_of_its_print_and_the_tick_of_its_partition() -> None:
    columns = schemas.topic_frame_schema(topics.OPTIONS_PRINTS)
    assert list(columns) == [*schemas.frame_schema("OptionPrint"), "w"]
    assert schemas.topic_frame_schema(topics.FLOW_PACKETS) == schemas.frame_schema("FlowPacket")


def test_rest_names_nest_features() -> None:
    names = schemas.rest_names("FlowPacket")
    assert names["total_premium"] == "features.total_premium"
    assert names["id"] == "id"


@pytest.mark.parametrize("name", NAMES)
def test_a_struct_has_a_record_s_fields_and_defaults_and_does_not_change(name: str) -> None:
    kind = structs.struct(name)
    assert kind is getattr(structs, name)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    assert list(fields) == [field["name"] for field in schemas.schema(name)["fields"]]
    assert {key for key, field in fields.items() if field.required} == {
        field["name"] for field in schemas.schema(name)["fields"] if "default" not in field
    }


def test_a_struct_reads_what_its_schema_allows_and_refuses_the_rest() -> None:
    tick = msgspec.convert({"w": 250, "seq": 1, "feed": "synthetic", "run": "r1"}, structs.struct("Tick"))
    assert msgspec.to_builtins(tick) == {"w": 250, "seq": 1, "feed": "synthetic", "run": "r1"}
    with pytest.raises(msgspec.ValidationError, match="w"):
        msgspec.convert({"w": "250", "seq": 1, "feed": "synthetic", "run": "r1"}, structs.struct("Tick"))
    with pytest.raises(AttributeError):
        tick.w = 500  # type: ignore[attr-defined]


def test_an_unknown_record_topic_or_attribute_is_an_error_that_names_it() -> None:
    with pytest.raises(SchemaError, match="record was 'Print'; allowed: OptionPrint"):
        schemas.schema("Print")
    with pytest.raises(SchemaError, match=r"topic was 'options\.trades'"):
        schemas.topic_frame_schema("options.trades")
    with pytest.raises(AttributeError, match="Print"):
        _ = structs.Print
