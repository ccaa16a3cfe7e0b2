"""Canonical bytes of records, and one hash over all outputs of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import polars as pl

from flowapp import topics
from flowapp.errors import SchemaError
from flowapp.records import schemas
from flowapp.records.columns import to_batch
from flowapp.records.shape import Shape

RUN_FACTS = frozenset({"run", "ts"})
ORIGIN = frozenset({"origin_partition", "origin_offset"})
CHUNK_ROWS = 20_000
_DIGEST_BYTES = 16
_IDS = ("id", "trace_id", "key")
_KEY = ("partition", "id", "revision")


@dataclass(frozen=True)
class Conflict:
    """Records that should be one and are not: equal in topic, partition, id and revision, unequal in value."""

    topic: str
    partition: int
    id: str
    revision: int
    values: int


@dataclass(frozen=True)
class CanonicalHash:
    """The hash of all records, how many there are (equal duplicates once), how many were duplicates, what conflicts."""

    digest: str
    rows: Mapping[str, int]
    duplicates: int
    conflicts: tuple[Conflict, ...]


def canonical_bytes(name: str, frame: pl.DataFrame, leave_out: Collection[str] = RUN_FACTS) -> list[bytes]:
    """Return each row's value without run facts: equal records have equal bytes, whatever batch or process made them."""
    shape = _shape(name, frozenset(leave_out))
    return shape.encode(to_batch(shape, frame), 0)


@cache
def _shape(name: str, leave_out: frozenset[str]) -> Shape:
    document = schemas.schema(name)
    return Shape.of({**document, "fields": [field for field in document["fields"] if field["name"] not in leave_out]})


def canonical_hash(frames: Mapping[str, pl.DataFrame], leave_out: Collection[str] = ()) -> CanonicalHash:
    """Hash records sorted by topic, partition, id, revision and origin; equal duplicates count once.

    Args:
        frames: by topic without namespace; raw topics need `_partition` and `_offset` beside the record's columns.
        leave_out: further fields that do not count, such as `ORIGIN`.
    """
    total, rows, conflicts = hashlib.blake2b(digest_size=32), {}, []
    duplicates = 0
    for topic in sorted(frames):
        entries = _entries(topic, frames[topic], RUN_FACTS | frozenset(leave_out))
        distinct = entries.unique([*_KEY, "digest"], keep="first", maintain_order=True)
        rows[topic] = distinct.height
        duplicates += entries.height - distinct.height
        conflicts += _conflicts(topic, distinct)
        total.update(f"{topic}:{distinct.height};".encode())
        total.update(distinct["partition"].to_numpy().astype("<i8").tobytes())
        total.update(b"".join(distinct["digest"].to_list()))
    return CanonicalHash(total.hexdigest(), rows, duplicates, tuple(conflicts))


def _entries(topic: str, frame: pl.DataFrame, leave_out: frozenset[str]) -> pl.DataFrame:
    parts = [_digests(name, part, leave_out) for name, part in _by_record(topic, frame) if part.height]
    if not parts:
        return pl.DataFrame(schema={"partition": pl.Int64, "id": pl.String, "revision": pl.Int64, "origin": pl.Int64, "digest": pl.Binary})
    # Without the origin the order must not follow it either.
    origin = [] if leave_out >= ORIGIN else ["origin"]
    return pl.concat(parts).sort([*_KEY, *origin, "digest"])


def _by_record(topic: str, frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    names = topics.BY_NAME[topic].records
    if "Tick" not in names or "w" not in frame.columns:
        yield names[0], frame
        return
    yield names[0], frame.filter(pl.col("w").is_null())
    yield "Tick", frame.filter(pl.col("w").is_not_null())


def _digests(name: str, frame: pl.DataFrame, leave_out: frozenset[str]) -> pl.DataFrame:
    fields = schemas.frame_schema(name)
    partition = _first(name, frame, "origin_partition", "_partition")
    origin = _first(name, frame, "origin_offset", "_offset")
    identity = pl.lit("tick") if name == "Tick" else pl.col(_first(name, frame, *(key for key in _IDS if key in fields)))
    revision = pl.col("w") if name == "Tick" else pl.col("revision") if "revision" in fields else pl.lit(0, pl.Int64)
    keys = frame.select(
        pl.col(partition).alias("partition"), identity.alias("id"), revision.alias("revision"), pl.col(origin).alias("origin")
    )
    digests: list[bytes] = []
    for start in range(0, frame.height, CHUNK_ROWS):
        values = canonical_bytes(name, frame[start : start + CHUNK_ROWS], leave_out)
        digests += [hashlib.blake2b(value, digest_size=_DIGEST_BYTES).digest() for value in values]
    return keys.with_columns(pl.Series("digest", digests, pl.Binary))


def _first(name: str, frame: pl.DataFrame, *columns: str) -> str:
    for column in columns:
        if column in frame.columns:
            return column
    raise SchemaError(f"{name} needs the column {' or '.join(columns)}; columns were {', '.join(frame.columns)}")


def _conflicts(topic: str, distinct: pl.DataFrame) -> list[Conflict]:
    several = distinct.group_by(_KEY, maintain_order=True).len().filter(pl.col("len") > 1)
    return [Conflict(topic, *row) for row in several.iter_rows()]
