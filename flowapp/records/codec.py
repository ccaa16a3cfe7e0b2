"""Records to bytes and back: columnar Avro in Confluent's framing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from flowapp import topics
from flowapp.errors import DecodeError, SchemaError
from flowapp.records import schemas
from flowapp.records.registry import Registry
from flowapp.records.shape import HEADER_BYTES, Shape, find_bad, schema_id_of

ROW = "_row"
_WIDENINGS: Mapping[pl.DataType, tuple[type[pl.DataType], ...]] = {
    pl.Int64(): (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32),
    pl.Float64(): (pl.Float32,),
    pl.String(): (pl.Categorical, pl.Enum),
}


@dataclass(frozen=True)
class Reject:
    """A value that is no record of its topic: its index, a short code, what is wrong, the schema id it claims."""

    row: int
    reason: str
    error: str
    schema_id: int | None


@dataclass(frozen=True)
class Decoded:
    """Records as columns of their topic plus `_row`, the index of each into the values; and what was refused."""

    frame: pl.DataFrame
    rejects: list[Reject]


class Codec:
    """Encodes and decodes frames; asks the registry once per id. One codec may serve several threads."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._writers: dict[int, Shape | SchemaError] = {}
        self._own: dict[str, tuple[Shape, int]] = {}

    def encode(self, name: str, frame: pl.DataFrame) -> list[bytes]:
        """Encode rows of a record as framed values; further columns are ignored, missing ones get their default.

        Raises:
            SchemaError: a required column is missing or holds a null, or a column has another type.
            RegistryUnavailable: the record's id is not known yet and the registry does not answer.
        """
        if name not in self._own:
            self._own[name] = (Shape.of(schemas.schema(name)), self._registry.id_of(name))
        shape, schema_id = self._own[name]
        if frame.is_empty():
            return []
        return shape.encode(to_batch(shape, frame), schema_id)

    def decode(self, topic: str, values: Sequence[bytes | None]) -> Decoded:
        """Decode the values of a topic, whatever mixture of its records and of their versions they are.

        Raises:
            RegistryUnavailable: an id is not known yet and the registry does not answer; nothing was decoded.
        """
        rejects: list[Reject] = []
        batches: list[pa.RecordBatch] = []
        kept: list[Sequence[int]] = []
        for head, rows in _group_by_header(values).items():
            schema_id = schema_id_of(head)
            if schema_id is None:
                rejects += [_unframed(row, values[row]) for row in rows]
                continue
            shape = self._writer(schema_id, topic)
            if isinstance(shape, Reject):
                rejects += [Reject(row, shape.reason, shape.error, schema_id) for row in rows]
                continue
            datums: list[Any] = list(values) if len(rows) == len(values) else [values[row] for row in rows]
            try:
                batch = shape.decode(datums)
            except DecodeError:
                bad = find_bad(shape, datums)
                rejects += [Reject(rows[i], "bad_record", error, schema_id) for i, error in bad.items()]
                rows = [row for i, row in enumerate(rows) if i not in bad]
                batch = shape.decode([datum for i, datum in enumerate(datums) if i not in bad])
            batches.append(to_topic(shape, topic, batch))
            kept.append(rows)
        return Decoded(_in_order(topic, batches, kept), sorted(rejects, key=lambda reject: reject.row))

    def _writer(self, schema_id: int, topic: str) -> Shape | Reject:
        if schema_id not in self._writers:
            try:
                self._writers[schema_id] = Shape.of(self._registry.schema_by_id(schema_id))
            except SchemaError as error:
                return Reject(-1, "unknown_schema", str(error), schema_id)
        shape = self._writers[schema_id]
        assert isinstance(shape, Shape)
        if shape.name not in topics.BY_NAME[topic].records:
            return Reject(-1, "wrong_record", f"record was {shape.name}; allowed in {topic}: {', '.join(topics.BY_NAME[topic].records)}", schema_id)
        return shape


def _group_by_header(values: Sequence[bytes | None]) -> dict[bytes, Sequence[int]]:
    heads = [value[:HEADER_BYTES] if value else b"" for value in values]
    if not heads:
        return {}
    if heads.count(heads[0]) == len(heads):
        return {heads[0]: range(len(heads))}
    groups: dict[bytes, list[int]] = {}
    for row, head in enumerate(heads):
        groups.setdefault(head, []).append(row)
    return dict(groups)


def _unframed(row: int, value: bytes | None) -> Reject:
    if not value:
        return Reject(row, "empty", "the record has no value", None)
    return Reject(row, "not_framed", f"value began with {value[:HEADER_BYTES].hex()}; allowed: 00 and a schema id", None)


def to_topic(shape: Shape, topic: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    """Project a writer's columns to those of the topic: unknown ones go, missing ones get the reader's default."""
    reader = {field["name"]: field for field in schemas.schema(shape.name)["fields"]}
    arrays, fields = [], []
    for field in schemas.topic_fields(topic):
        name, kind = field["name"], schemas.arrow_type(field["type"])
        if name in shape.fields and name in reader:
            arrays.append(batch.column(name))
        else:
            arrays.append(_constant(reader.get(name, {}).get("default"), kind, batch.num_rows))
        fields.append(pa.field(name, kind))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _constant(value: Any, kind: pa.DataType, rows: int) -> pa.Array:
    return pa.nulls(rows, kind) if value is None else pa.array([value], kind).take(pa.array(np.zeros(rows, np.int64)))


def _in_order(topic: str, batches: list[pa.RecordBatch], kept: list[Sequence[int]]) -> pl.DataFrame:
    if not batches:
        return pl.DataFrame(schema={**schemas.topic_frame_schema(topic), ROW: pl.Int64})
    frame = pl.from_arrow(pa.Table.from_batches(batches))
    assert isinstance(frame, pl.DataFrame)
    rows = np.concatenate([np.asarray(part, np.int64) for part in kept])
    if len(batches) > 1:
        order = np.argsort(rows)
        frame, rows = frame[order], rows[order]
    return frame.with_columns(pl.Series(ROW, rows))


def to_batch(shape: Shape, frame: pl.DataFrame) -> pa.RecordBatch:
    """Bring a frame's columns into the order and the Arrow types of a shape.

    Raises:
        SchemaError: a required column is missing or holds a null, or a column has another type.
    """
    table = frame.select([_column(shape, field, frame) for field in shape.fields.values()]).to_arrow()
    arrays = []
    for field, column in zip(shape.columns, table.columns, strict=True):
        array = column.cast(field.type).combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        if (array.null_count and not field.nullable) or (pa.types.is_list(field.type) and array.flatten().null_count):
            raise SchemaError(f"{shape.name}.{field.name} holds a null; it is not nullable")
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=shape.columns)


def _column(shape: Shape, field: Mapping[str, Any], frame: pl.DataFrame) -> pl.Expr:
    name, wanted = field["name"], schemas.frame_type(field["type"])
    if name not in frame.columns:
        if "default" not in field:
            raise SchemaError(f"{shape.name} needs the column {name}; columns were {', '.join(frame.columns)}")
        return pl.lit(field["default"], dtype=wanted).alias(name) if field["default"] != [] else pl.lit(pl.Series(name, [[]], wanted)).first().alias(name)
    found = frame.schema[name]
    if found == wanted:
        return pl.col(name)
    if found == pl.Null or found == pl.List(pl.Null) or isinstance(found, _WIDENINGS.get(wanted, ())):
        return pl.col(name).cast(wanted)
    raise SchemaError(f"{shape.name}.{name} was a column of {found}; allowed: {wanted}")
