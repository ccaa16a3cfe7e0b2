"""Record shapes: the `.avsc` files, and what is generated from them.

The files under `schemas/avro` are the only source. They stand beside the package in a checkout, and under
`<prefix>/share/flowapp` when the package is installed from a wheel.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from flowapp import topics
from flowapp.errors import SchemaError

NAMESPACE = "flowapp"
_PLACES = (
    Path(__file__).resolve().parents[2] / "schemas" / "avro",
    Path(sys.prefix) / "share" / "flowapp" / "schemas" / "avro",
)
_SCHEMA_KEYS = ("type", "name", "namespace", "doc", "fields")
_FIELD_KEYS = ("name", "type", "default", "doc", "rest")
_FRAME_TYPES: Mapping[str, pl.DataType] = {
    "long": pl.Int64(),
    "double": pl.Float64(),
    "boolean": pl.Boolean(),
    "string": pl.String(),
    "bytes": pl.Binary(),
}
_ARROW_TYPES: Mapping[str, pa.DataType] = {
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "string": pa.string(),
    "bytes": pa.binary(),
}


def directory() -> Path:
    """Return the directory of the `.avsc` files."""
    for place in _PLACES:
        if place.is_dir():
            return place
    raise SchemaError(f"no record schemas found; looked in {', '.join(str(place) for place in _PLACES)}")


@cache
def names() -> tuple[str, ...]:
    """Return the names of all records, in the order in which the topics carry them."""
    return tuple(dict.fromkeys(name for topic in topics.ALL for name in topic.records))


@cache
def schema(name: str) -> dict[str, Any]:
    """Return a record's parsed Avro schema; treat it as read-only."""
    if name not in names():
        raise SchemaError(f"record was {name!r}; allowed: {', '.join(names())}")
    return read(directory() / f"{name}.avsc")


def read(path: Path) -> dict[str, Any]:
    """Parse one `.avsc` file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path} cannot be read as a record schema: {error}") from error
    if not isinstance(document, dict):
        raise SchemaError(f"{path} was a JSON {type(document).__name__}; allowed: an Avro record")
    return document


def canonical(document: Mapping[str, Any]) -> str:
    """Render a schema in the one form that is ever registered: fixed key order, no spaces, docs and `rest` kept."""
    ordered = {key: document[key] for key in _SCHEMA_KEYS if key in document}
    ordered |= {key: document[key] for key in sorted(document) if key not in _SCHEMA_KEYS}
    ordered["fields"] = [
        {key: field[key] for key in (*_FIELD_KEYS, *sorted(set(field) - set(_FIELD_KEYS))) if key in field} for field in document["fields"]
    ]
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=True)


@cache
def canonical_json(name: str) -> str:
    """Return a record's registered text; equal bytes always."""
    return canonical(schema(name))


def split_type(avro_type: Any) -> tuple[str, str | None, bool]:
    """Return (base type, item type of an array, nullable) of a field's type.

    Raises:
        SchemaError: for a type that records do not use.
    """
    nullable = isinstance(avro_type, list)
    inner = avro_type
    if nullable:
        if len(avro_type) != 2 or avro_type[0] != "null":
            raise SchemaError(f'type was {json.dumps(avro_type)}; allowed unions: ["null", <type>]')
        inner = avro_type[1]
    if isinstance(inner, dict) and inner.get("type") == "array" and inner.get("items") in _FRAME_TYPES:
        return "array", inner["items"], nullable
    if isinstance(inner, str) and inner in _FRAME_TYPES:
        return inner, None, nullable
    raise SchemaError(f"type was {json.dumps(avro_type)}; allowed: {', '.join(_FRAME_TYPES)}, arrays of them, or null")


def frame_type(avro_type: Any) -> pl.DataType:
    """Return the frame column type of a field's type."""
    base, item, _ = split_type(avro_type)
    return pl.List(_FRAME_TYPES[item]) if item is not None else _FRAME_TYPES[base]


def arrow_type(avro_type: Any) -> pa.DataType:
    """Return the Arrow type of a field's type, as the codec reads and writes it."""
    base, item, _ = split_type(avro_type)
    return pa.list_(_ARROW_TYPES[item]) if item is not None else _ARROW_TYPES[base]


def is_nullable(avro_type: Any) -> bool:
    """Tell whether a field's type admits null."""
    return isinstance(avro_type, list)


@cache
def frame_schema(name: str) -> pl.Schema:
    """Return the frame columns of a record, in the order of its fields."""
    return pl.Schema({field["name"]: frame_type(field["type"]) for field in schema(name)["fields"]})


@cache
def arrow_schema(name: str) -> pa.Schema:
    """Return the Arrow columns of a record, in the order of its fields."""
    return pa.schema([pa.field(f["name"], arrow_type(f["type"]), nullable=is_nullable(f["type"])) for f in schema(name)["fields"]])


@cache
def topic_fields(topic: str) -> tuple[dict[str, Any], ...]:
    """Return the fields of a topic's records, each name once, in order of first appearance."""
    if topic not in topics.BY_NAME:
        raise SchemaError(f"topic was {topic!r}; allowed: {', '.join(topics.BY_NAME)}")
    fields: dict[str, dict[str, Any]] = {}
    for name in topics.BY_NAME[topic].records:
        for field in schema(name)["fields"]:
            known = fields.setdefault(field["name"], field)
            if frame_type(known["type"]) != frame_type(field["type"]):
                raise SchemaError(f"field {field['name']} of {name} has another type in another record of {topic}")
    return tuple(fields.values())


@cache
def topic_frame_schema(topic: str) -> pl.Schema:
    """Return the union of the columns of a topic's records, such as OptionPrint's and Tick's."""
    return pl.Schema({field["name"]: frame_type(field["type"]) for field in topic_fields(topic)})


@cache
def rest_names(name: str) -> Mapping[str, str]:
    """Return each field's name over REST; a dot nests, `features.strike` stands inside `features`."""
    return {field["name"]: field.get("rest", field["name"]) for field in schema(name)["fields"]}
