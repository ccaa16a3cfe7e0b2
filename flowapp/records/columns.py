"""Frames as the Arrow columns of a record shape."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa

from flowapp.errors import SchemaError
from flowapp.records.shape import Shape

_WIDENINGS: Mapping[pl.DataType, tuple[type[pl.DataType], ...]] = {
    pl.Int64(): (pl.Int8, pl.Int16, pl.Int32, pl.UInt8, pl.UInt16, pl.UInt32),
    pl.Float64(): (pl.Float32,),
    pl.String(): (pl.Categorical, pl.Enum),
}


def to_batch(shape: Shape, frame: pl.DataFrame) -> pa.RecordBatch:
    """Bring a frame's columns into the order and the Arrow types of a shape.

    Raises:
        SchemaError: a required column is missing or holds a null, or a column has another type.
    """
    present = dict(zip(frame.columns, frame.dtypes, strict=True))
    if all(present.get(name) == wanted for name, wanted in shape.frame_types.items()):
        table = frame[list(shape.frame_types)].to_arrow()
    else:
        columns = [_column(shape, name, wanted, present) for name, wanted in shape.frame_types.items()]
        table = frame.select(columns).to_arrow()
    arrays = [
        _checked(shape, field, column.chunk(0) if column.num_chunks == 1 else column.combine_chunks())
        for field, column in zip(shape.columns, table.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=shape.columns)


def _column(shape: Shape, name: str, wanted: pl.DataType, present: Mapping[str, pl.DataType]) -> pl.Expr | str:
    found = present.get(name)
    if found == wanted:
        return name
    if found is None:
        if "default" not in shape.fields[name]:
            raise SchemaError(f"{shape.name} needs the column {name}; columns were {', '.join(present)}")
        return pl.lit(pl.Series(name, [shape.fields[name]["default"]], wanted)).first().alias(name)
    if found in (pl.Null, pl.List(pl.Null)) or isinstance(found, _WIDENINGS.get(wanted, ())):
        return pl.col(name).cast(wanted)
    raise SchemaError(f"{shape.name}.{name} was a column of {found}; allowed: {wanted}")


def _checked(shape: Shape, field: pa.Field, array: pa.Array) -> pa.Array:
    if array.type != field.type:
        array = array.cast(field.type)
    if (array.null_count and not field.nullable) or (pa.types.is_list(field.type) and array.flatten().null_count):
        raise SchemaError(f"{shape.name}.{field.name} holds a null; it is not nullable")
    return array
