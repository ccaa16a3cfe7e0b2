"""Records to bytes and back; fastavro is the oracle."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowapp import topics
from flowapp.errors import RegistryUnavailable, SchemaError
from flowapp.records import schemas
from flowapp.records.codec import Codec, Reject
from flowapp.records.registry import MemoryRegistry
from flowapp.records.shape import ENCODE_ROWS, Shape, datum_bytes, frame_header

NAMES = schemas.names()
LONGS = st.one_of(st.sampled_from([0, -1, 1, 63, 64, -64, -65, 2**31, -(2**31), 2**63 - 1, -(2**63)]), st.integers(-(2**63), 2**63 - 1))
TEXTS = st.one_of(
    st.sampled_from(["", "a" * 200, "Zürich", "日本", "🂡", "\0", '"\\\n']), st.text(st.characters(codec="utf-8"), max_size=70)
)
VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "long": LONGS,
    "double": st.floats(allow_nan=True, allow_infinity=True),
    "boolean": st.booleans(),
    "string": TEXTS,
    "bytes": st.binary(max_size=80),
}
TOPIC_OF = {name: topic.name for topic in topics.ALL for name in topic.records}


@cache
def rows_of(name: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    def values(avro_type: Any) -> st.SearchStrategy[Any]:
        base, item, nullable = schemas.split_type(avro_type)
        some = st.lists(VALUES[item], max_size=3) if item is not None else VALUES[base]
        return st.one_of(st.none(), some) if nullable else some

    return st.lists(st.fixed_dictionaries({f["name"]: values(f["type"]) for f in schemas.schema(name)["fields"]}), min_size=1, max_size=6)


@cache
def oracle_schema(name: str) -> Any:
    return fastavro.parse_schema(schemas.schema(name))


def oracle_encode(name: str, row: Mapping[str, Any], schema: Any = None) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema or oracle_schema(name), row)
    return stream.getvalue()


def oracle_decode(name: str, value: bytes) -> Any:
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), oracle_schema(name), None)


def comparable(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row in which NaN equals NaN."""

    def plain(value: Any) -> Any:
        return [plain(item) for item in value] if isinstance(value, list) else "NaN" if value != value else value

    return {key: plain(value) for key, value in row.items()}


def frame_of(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schemas.frame_schema(name), orient="row")


def with_row(topic: str) -> pl.Schema:
    return pl.Schema([*schemas.topic_frame_schema(topic).items(), ("_row", pl.Int64())])


def a_row(name: str, **values: Any) -> dict[str, Any]:
    """Return a row with every nullable null and every other field at its plainest."""
    plain = {"long": 1, "double": 1.5, "boolean": False, "string": "x", "bytes": b"x", "array": []}
    row = {}
    for field in schemas.schema(name)["fields"]:
        base, _, nullable = schemas.split_type(field["type"])
        row[field["name"]] = None if nullable else plain[base]
    return row | values


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
def codec(registry: MemoryRegistry) -> Codec:
    return Codec(registry)


SHARED_REGISTRY = MemoryRegistry()
SHARED = Codec(SHARED_REGISTRY)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_it_writes_the_bytes_that_fastavro_writes_and_reads_the_values_that_fastavro_reads(name: str, data: st.DataObject) -> None:
    rows = data.draw(rows_of(name))
    header = frame_header(SHARED_REGISTRY.id_of(name))
    expected = [header + oracle_encode(name, row) for row in rows]
    assert SHARED.encode(name, frame_of(name, rows)) == expected

    decoded = SHARED.decode(TOPIC_OF[name], expected)
    assert decoded.rejects == []
    assert decoded.frame["_row"].to_list() == list(range(len(rows)))
    read = [comparable(row) for row in decoded.frame.select(list(schemas.frame_schema(name))).to_dicts()]
    assert read == [comparable(oracle_decode(name, value)) for value in expected] == [comparable(row) for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_every_nullable_as_null_and_frames_that_are_slices_survive_the_round_trip(name: str, codec: Codec) -> None:
    rows = [a_row(name) for _ in range(70)]
    values = codec.encode(name, frame_of(name, rows))
    assert values == [frame_header(SHARED_REGISTRY.id_of(name)) + oracle_encode(name, row) for row in rows]
    assert codec.encode(name, frame_of(name, rows)[3:69]) == values[3:69]
    assert codec.decode(TOPIC_OF[name], values).frame.select(list(schemas.frame_schema(name))).to_dicts() == rows


@settings(max_examples=60, deadline=None)
@given(rows=rows_of("OptionPrint"), start=st.integers(0, 5), copies=st.integers(1, 400))
def test_the_bytes_that_rows_must_take_are_counted_exactly(rows: list[dict[str, Any]], start: int, copies: int) -> None:
    shape = Shape.of(schemas.schema("OptionPrint"))
    values = SHARED.encode("OptionPrint", frame_of("OptionPrint", rows * copies))[start:]
    if values:
        assert datum_bytes(shape.decode(values)) == sum(map(len, values))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bytes_of_any_kind_are_read_alike_alone_and_in_a_batch(data: st.DataObject) -> None:
    good = SHARED.encode("OptionPrint", frame_of("OptionPrint", [a_row("OptionPrint", seq=n) for n in range(3)]))
    value = bytearray(good[1])
    for _ in range(data.draw(st.integers(0, 3))):
        value[data.draw(st.integers(5, len(value) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(value[: data.draw(st.integers(5, len(value)))]) + data.draw(st.binary(max_size=2))
    alone = SHARED.decode(topics.OPTIONS_PRINTS, [changed])
    together = SHARED.decode(topics.OPTIONS_PRINTS, [good[0], changed, good[2]])
    assert [reject.error for reject in alone.rejects] == [reject.error for reject in together.rejects]
    assert together.frame["seq"].to_list()[:: together.frame.height - 1] == [0, 2]
    assert alone.frame.drop("_row").equals(together.frame.filter(pl.col("_row") == 1).drop("_row"))


def test_more_rows_than_one_call_takes_are_written_in_order(codec: Codec) -> None:
    count = ENCODE_ROWS + 3
    frame = pl.DataFrame({"w": range(count), "seq": range(count), "feed": "f", "run": "r"})
    values = codec.encode("Tick", frame)
    assert len(values) == count
    assert codec.decode(topics.OPTIONS_PRINTS, values).frame.select(frame.columns).equals(frame)


def test_prints_and_ticks_come_out_in_the_order_in_which_they_stand(codec: Codec) -> None:
    prints = codec.encode("OptionPrint", frame_of("OptionPrint", [a_row("OptionPrint", seq=n, conditions=["a", ""]) for n in (1, 3, 4)]))
    ticks = codec.encode(
        "Tick", frame_of("Tick", [{"w": 250, "seq": 2, "feed": "f", "run": "r"}, {"w": 500, "seq": 5, "feed": "f", "run": "r"}])
    )
    frame = codec.decode(topics.OPTIONS_PRINTS, [prints[0], ticks[0], prints[1], prints[2], ticks[1]]).frame
    assert frame.schema == with_row(topics.OPTIONS_PRINTS)
    assert frame["seq"].to_list() == [1, 2, 3, 4, 5]
    assert frame["w"].to_list() == [None, 250, None, None, 500]
    assert frame["price"].to_list() == [1.5, None, 1.5, 1.5, None]
    assert frame["conditions"].to_list() == [["a", ""], None, ["a", ""], ["a", ""], None]
    assert frame["_row"].to_list() == [0, 1, 2, 3, 4]


def test_no_values_give_no_rows_of_the_topic_s_columns(codec: Codec) -> None:
    decoded = codec.decode(topics.OPTIONS_PRINTS, [])
    assert (decoded.frame.height, decoded.rejects) == (0, [])
    assert decoded.frame.schema == with_row(topics.OPTIONS_PRINTS)
    assert codec.encode("Tick", frame_of("Tick", [])) == []


def test_each_kind_of_bad_value_is_refused_by_itself_and_nothing_else_is_lost(codec: Codec, registry: MemoryRegistry) -> None:
    good = codec.encode("OptionPrint", frame_of("OptionPrint", [a_row("OptionPrint", seq=n) for n in range(4)]))
    quote = codec.encode("OptionNbbo", frame_of("OptionNbbo", [a_row("OptionNbbo")]))[0]
    own = registry.id_of("OptionPrint")
    values = [good[0], b"garbage", None, b"", frame_header(99) + b"x", good[1], good[2][:-3], good[2] + b"xy", quote, b"\0\0", good[3]]
    decoded = codec.decode(topics.OPTIONS_PRINTS, values)
    assert decoded.frame.select("_row", "seq").rows() == [(0, 0), (5, 1), (10, 3)]
    assert [(reject.row, reject.reason, reject.schema_id) for reject in decoded.rejects] == [
        (1, "not_framed", None),
        (2, "empty", None),
        (3, "empty", None),
        (4, "unknown_schema", 99),
        (6, "bad_record", own),
        (7, "bad_record", own),
        (8, "wrong_record", registry.id_of("OptionNbbo")),
        (9, "not_framed", None),
    ]
    assert decoded.rejects[5].error == "OptionPrint: 2 bytes after the end of the record"
    assert decoded.rejects[6].error == "record was OptionNbbo; allowed in options.prints: OptionPrint, Tick"


def test_a_byte_that_only_the_columnar_reader_refuses_is_refused(codec: Codec) -> None:
    row = a_row("OptionPrint", is_etf=True)
    value = codec.encode("OptionPrint", frame_of("OptionPrint", [row]))[0]
    place = next(i for i in range(5, len(value)) if codec_differs(value, i, codec, row))
    [reject] = codec.decode(topics.OPTIONS_PRINTS, [value[:place] + b"\x07" + value[place + 1 :]]).rejects
    assert reject == Reject(
        0, "bad_record", "invalid boolean byte: 7", codec.decode(topics.OPTIONS_PRINTS, [value[:-1]]).rejects[0].schema_id
    )


def codec_differs(value: bytes, place: int, codec: Codec, row: dict[str, Any]) -> bool:
    other = codec.encode("OptionPrint", frame_of("OptionPrint", [row | {"is_etf": False}]))[0]
    return value[place] != other[place]


def test_an_array_in_several_blocks_is_read_as_fastavro_reads_it(codec: Codec, registry: MemoryRegistry) -> None:
    value = codec.encode("Run", frame_of("Run", [a_row("Run", sources=["ab", "cd"])]))[0]
    blocks = value.replace(b"\x04\x04ab\x04cd\x00", b"\x02\x04ab\x01\x06\x04cd\x00")
    assert blocks != value
    decoded = codec.decode(topics.RUNS, [blocks, value])
    assert decoded.rejects == []
    assert decoded.frame["sources"].to_list() == [["ab", "cd"], ["ab", "cd"]]


def test_writers_of_an_older_and_of_a_newer_version_are_read_beside_our_own(codec: Codec, registry: MemoryRegistry) -> None:
    document = schemas.schema("Run")
    gone = {"sources", "detail"}
    older = {**document, "fields": [f for f in document["fields"] if f["name"] not in gone]}
    new_field = {"name": "colour", "type": ["null", "string"], "default": None, "doc": "unknown to this version"}
    newer = {**document, "fields": [new_field, *reversed(document["fields"])]}
    row = a_row("Run", sources=["s"], detail="d")
    old_value = frame_header(registry.register("Run", schemas.canonical(older))) + oracle_encode("Run", row, older)
    new_value = frame_header(registry.register("Run", schemas.canonical(newer))) + oracle_encode("Run", row | {"colour": "red"}, newer)
    own_value = codec.encode("Run", frame_of("Run", [row]))[0]
    decoded = codec.decode(topics.RUNS, [new_value, old_value, own_value, new_value])
    assert decoded.rejects == []
    assert decoded.frame["sources"].to_list() == [["s"], [], ["s"], ["s"]]
    assert decoded.frame["detail"].to_list() == ["d", None, "d", "d"]
    assert decoded.frame.columns == [*schemas.frame_schema("Run"), "_row"]


def test_a_writer_whose_field_has_another_type_or_lacks_a_required_one_is_refused(codec: Codec, registry: MemoryRegistry) -> None:
    document = schemas.schema("Tick")
    text_w = {**document, "fields": [{**f, "type": "string"} if f["name"] == "w" else f for f in document["fields"]]}
    no_feed = {**document, "fields": [f for f in document["fields"] if f["name"] != "feed"]}
    row = {"w": "250", "seq": 1, "feed": "f", "run": "r"}
    first = frame_header(registry.register("Tick", schemas.canonical(text_w))) + oracle_encode("Tick", row, text_w)
    second = frame_header(registry.register("Tick", schemas.canonical(no_feed))) + oracle_encode("Tick", row | {"w": 1}, no_feed)
    rejects = codec.decode(topics.OPTIONS_PRINTS, [first, second]).rejects
    assert [reject.reason for reject in rejects] == ["incompatible_schema", "incompatible_schema"]
    assert rejects[0].error == "Tick.w was written as string; allowed: int64"
    assert rejects[1].error == "Tick.feed is not written and has no default"


def test_a_registry_that_does_not_answer_is_waited_for_and_an_id_once_known_is_never_asked_again(
    codec: Codec, registry: MemoryRegistry
) -> None:
    value = codec.encode("Tick", frame_of("Tick", [{"w": 250, "seq": 1, "feed": "f", "run": "r"}]))[0]
    registry.available = False
    with pytest.raises(RegistryUnavailable):
        codec.decode(topics.OPTIONS_PRINTS, [value])
    registry.available = True
    assert codec.decode(topics.OPTIONS_PRINTS, [value]).frame["w"].to_list() == [250]
    registry.available = False
    assert codec.decode(topics.OPTIONS_PRINTS, [value]).frame["w"].to_list() == [250]
    with pytest.raises(RegistryUnavailable):
        Codec(registry).encode("Tick", frame_of("Tick", []))


def test_further_columns_are_ignored_and_missing_ones_get_their_default(codec: Codec) -> None:
    required = {f["name"] for f in schemas.schema("OptionPrint")["fields"] if "default" not in f}
    rows = [a_row("OptionPrint", seq=n) for n in range(2)]
    frame = frame_of("OptionPrint", rows).select(*required, pl.lit(7).alias("colour"))
    assert codec.encode("OptionPrint", frame) == codec.encode("OptionPrint", frame_of("OptionPrint", rows))


def test_narrower_columns_are_widened_and_others_are_refused_by_name(codec: Codec) -> None:
    frame = pl.DataFrame({"w": [250], "seq": [1], "feed": ["f"], "run": ["r"]})
    narrow = frame.with_columns(pl.col("seq").cast(pl.Int32), pl.col("feed").cast(pl.Categorical), pl.col("run").cast(pl.Enum(["r"])))
    assert codec.encode("Tick", narrow) == codec.encode("Tick", frame)
    with pytest.raises(SchemaError, match=r"Tick\.w was a column of Float64; allowed: Int64"):
        codec.encode("Tick", frame.with_columns(pl.col("w").cast(pl.Float64)))
    with pytest.raises(SchemaError, match="Tick needs the column run; columns were w, seq, feed"):
        codec.encode("Tick", frame.drop("run"))


def test_a_null_in_a_required_column_or_inside_a_list_is_refused_by_name(codec: Codec) -> None:
    frame = frame_of("OptionPrint", [a_row("OptionPrint", price=None), a_row("OptionPrint")])
    with pytest.raises(SchemaError, match=r"OptionPrint\.price holds a null"):
        codec.encode("OptionPrint", frame)
    with pytest.raises(SchemaError, match=r"OptionPrint\.conditions holds a null"):
        codec.encode("OptionPrint", frame_of("OptionPrint", [a_row("OptionPrint", conditions=["a", None])]))


def test_one_codec_serves_several_threads(codec: Codec) -> None:
    frame = frame_of("OptionPrint", [a_row("OptionPrint", seq=n) for n in range(500)])
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            read = codec.decode(topics.OPTIONS_PRINTS, [*codec.encode("OptionPrint", frame)]).frame
            wrong.extend([1] if read["seq"].to_list() != list(range(500)) else [])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
