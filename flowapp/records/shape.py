"""One record shape as the columnar Avro library wants it: batches in, batches out.

The five bytes in front of a datum (zero, then the schema id) are declared to the library as two more fields, a
boolean and a float: so framed values are read and written as they are, without a copy of each to cut or to prefix it.
The library neither notices bytes after a datum nor nulls in a required column; both are checked here.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyruhvro

from flowapp.errors import DecodeError
from flowapp.records import schemas

HEADER_BYTES = 5
SMALL_BATCH_ROWS = 1000
ENCODE_ROWS = 50_000  # the library's offsets are 32-bit: two gigabytes at most in one call
INT64, STRING = pa.int64(), pa.string()
_WIDTHS = {pa.float64(): 8, pa.float32(): 4, pa.bool_(): 1}
# fastavro names the stream it reads from, which differs from run to run.
_ADDRESS = re.compile(r" from <[^>]*>")
_NO_OFFSETS = np.zeros(1, np.int32)
_HEADER = ({"name": "_magic", "type": "boolean"}, {"name": "_schema_id", "type": "float"})
_HEADER_ARROW = [pa.field("_magic", pa.bool_(), nullable=False), pa.field("_schema_id", pa.float32(), nullable=False)]


@dataclass(frozen=True, eq=False)
class Shape:
    """A writer's schema: its fields, its framed Avro text, its parsed form for row-wise work."""

    name: str
    fields: Mapping[str, Mapping[str, Any]]
    columns: pa.Schema
    frame_types: Mapping[str, pl.DataType]
    framed_text: str
    framed_columns: pa.Schema
    parsed: Any
    columnar: bool

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Shape:
        """Prepare a schema; SchemaError for a type that records do not use."""
        lean = [{"name": f["name"], "type": f["type"]} for f in document["fields"]]
        columns = pa.schema([pa.field(f["name"], schemas.arrow_type(f["type"]), schemas.is_nullable(f["type"])) for f in lean])
        return cls(
            name=document["name"],
            fields={field["name"]: field for field in document["fields"]},
            columns=columns,
            frame_types={field["name"]: schemas.frame_type(field["type"]) for field in lean},
            framed_text=json.dumps({"type": "record", "name": document["name"], "fields": [*_HEADER, *lean]}),
            framed_columns=pa.schema([*_HEADER_ARROW, *columns]),
            parsed=fastavro.parse_schema({"type": "record", "name": document["name"], "fields": lean}),
            columnar=all("bytes" not in schemas.split_type(f["type"]) for f in lean),
        )

    def position(self, name: str) -> int:
        """Return the index of a field among the columns that `decode` returns."""
        return int(self.columns.get_field_index(name)) + (len(_HEADER) if self.columnar else 0)

    def decode(self, values: list[bytes]) -> pa.RecordBatch:
        """Decode framed values of this shape; DecodeError when any of them is not exactly one record."""
        if not self.columnar:
            return pa.RecordBatch.from_pylist([self.decode_row(value) for value in values], schema=self.columns)
        try:
            batch = pyruhvro.deserialize_array(values, self.framed_text)
        except ValueError as error:
            raise DecodeError(str(error)) from error
        if datum_bytes(batch) != sum(map(len, values)):
            for value in values:
                self.decode_row(value)
        return batch

    def decode_row(self, value: bytes) -> dict[str, Any]:
        """Decode one framed value row-wise; DecodeError when it is not exactly one record."""
        stream = io.BytesIO(value)
        stream.seek(HEADER_BYTES)
        try:
            row = fastavro.schemaless_reader(stream, self.parsed, None)
        except (EOFError, ValueError, IndexError, OverflowError, MemoryError) as error:
            words = _ADDRESS.sub("", str(error)) or type(error).__name__
            raise DecodeError(f"{self.name}: {words}") from error
        left = len(value) - stream.tell()
        if left:
            raise DecodeError(f"{self.name}: {left} bytes after the end of the record")
        return dict(row)

    def encode(self, batch: pa.RecordBatch, schema_id: int) -> list[bytes]:
        """Encode rows of this shape's columns as framed values."""
        if not self.columnar:
            return [self.encode_row(row, schema_id) for row in batch.to_pylist()]
        values: list[bytes] = []
        for start in range(0, batch.num_rows, ENCODE_ROWS):
            part = batch.slice(start, ENCODE_ROWS)
            header = _header_columns(schema_id, part.num_rows)
            framed = pa.RecordBatch.from_arrays([*header, *part.columns], schema=self.framed_columns)
            values += pyruhvro.serialize_record_batch(framed, self.framed_text, 1)[0].to_pylist()
        return values

    def encode_row(self, row: Mapping[str, Any], schema_id: int) -> bytes:
        """Encode one row as a framed value."""
        stream = io.BytesIO()
        stream.write(frame_header(schema_id))
        fastavro.schemaless_writer(stream, self.parsed, row)
        return stream.getvalue()


def frame_header(schema_id: int) -> bytes:
    """Return the five bytes in front of a datum: zero, then the schema id, big-endian."""
    return struct.pack(">bI", 0, schema_id)


def schema_id_of(value: bytes) -> int | None:
    """Return the schema id that a framed value claims; None when it is not framed."""
    if len(value) < HEADER_BYTES or value[0] != 0:
        return None
    return int.from_bytes(value[1:HEADER_BYTES], "big")


def _header_columns(schema_id: int, rows: int) -> list[pa.Array]:
    id_bytes = np.full(rows, schema_id, ">u4").view("<f4")
    return [pa.array(np.zeros(rows, bool)), pa.array(id_bytes)]


def datum_bytes(batch: pa.RecordBatch) -> int:
    """Return how many bytes the rows take in Avro at least, header included.

    Each row was decoded from its own value and used at most all of it, so a sum equal to the bytes handed in proves
    that every row used every byte of its value.
    """
    fixed, numbers = 0, []
    for column, field in zip(batch.columns, batch.schema, strict=True):
        size, varints = _column_bytes(column)
        fixed += size + (len(column) if field.nullable else 0)
        numbers += varints
    if batch.num_rows <= SMALL_BATCH_ROWS:
        numbers = [np.concatenate(numbers)] if numbers else []
    return fixed + sum(map(_varint_bytes, numbers))


def _column_bytes(column: pa.Array) -> tuple[int, list[npt.NDArray[Any]]]:
    """Return a column's bytes without its varints, and the numbers that are written as varints."""
    if column.null_count:
        column = column.drop_null()
    rows, kind = len(column), column.type
    if kind == INT64:
        return 0, [column.to_numpy()]
    if kind in _WIDTHS:
        return rows * _WIDTHS[kind], []
    offsets = np.frombuffer(column.buffers()[1], np.int32, rows + 1, column.offset * 4) if rows else _NO_OFFSETS
    lengths = offsets[1:] - offsets[:-1]
    if kind == STRING:
        return int(offsets[-1] - offsets[0]), [lengths]
    size, varints = _column_bytes(column.flatten())
    return rows + size, [lengths[lengths > 0], *varints]


def _varint_bytes(numbers: npt.NDArray[Any]) -> int:
    """Return the summed length of zig-zag varints: one byte each, one more for each 7 bits that are needed."""
    if not len(numbers):
        return 0
    wide = numbers.astype(np.int64, copy=False)
    zigzag = ((wide << 1) ^ (wide >> 63)).view(np.uint64)
    highest, total, bound = int(zigzag.max()), len(zigzag), 1 << 7
    while highest >= bound:
        total += int(np.count_nonzero(zigzag >= np.uint64(bound)))
        bound <<= 7
    return total


def find_bad(shape: Shape, values: Sequence[bytes]) -> dict[int, str]:
    """Return what is wrong with which value, by its index; called when `decode` refused them together."""
    return dict(_bad_in(shape, values, 0))


def _bad_in(shape: Shape, values: Sequence[bytes], start: int) -> list[tuple[int, str]]:
    try:
        shape.decode(list(values))
    except DecodeError as error:
        if len(values) == 1:
            return [(start, _explain(shape, values[0]) or str(error))]
        half = len(values) // 2
        return _bad_in(shape, values[:half], start) + _bad_in(shape, values[half:], start + half)
    return []


def _explain(shape: Shape, value: bytes) -> str | None:
    """Return the row-wise decoder's own words, None when it finds nothing wrong (it is the more lenient one)."""
    try:
        shape.decode_row(value)
    except DecodeError as error:
        return str(error)
    return None
