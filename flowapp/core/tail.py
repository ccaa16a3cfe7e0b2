"""The newest clustered prints of a partition: everything from the oldest print that an open, held or candidate cluster needs.

Open and held clusters are functions of these rows and of the last tick, so the rows are the state; sums are taken anew
when it is loaded. Rows lie in chunks of BLOCK_OFFSETS log offsets, a state row each: a chunk is written while prints
come into it, cut at the tail's first row, and deleted when the tail has left it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core.numbering import ATTRIBUTES, CONTRACTS

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PREFIX = b"tail:"
BLOCK_OFFSETS = 512
NO_INTEGER = -(2**63)
"""Null of an integer; null of a real is NaN."""
_MAX_CHUNKS = 16
_LEAST_ROOM = 1024
_FEW_TEXTS = 1024
_PACKED = (pl.col("text").str.len_bytes().cast(pl.UInt16).implode().alias("lengths"), pl.col("text").str.join("").alias("blob"))

# Rows of the number matrix; reals stand in it as their bits. CLUSTER is the offset of the print that opened the print's
# cluster, which names it; VENUE is a place in the partition's list of venues. What follows STORED holds in this process only.
NUMBERS = (
    "flags", "micro", "seq", "source_ts", "ingest_ts", "size", "nbbo_bid_size", "nbbo_ask_size", "nbbo_ts", "underlying_ts", "multiplier",
    "expires_at", "price", "nbbo_bid", "nbbo_ask", "underlying_bid", "underlying_ask", "strike", "offset", "cluster", "venue",
    "contract", "attributes",
)  # fmt: skip
(
    FLAGS, MICRO, SEQ, SOURCE_TS, INGEST_TS, SIZE, BID_SIZE, ASK_SIZE, QUOTE_TS, UNDERLYING_TS, MULTIPLIER,
    EXPIRES_AT, PRICE, BID, ASK, UNDERLYING_BID, UNDERLYING_ASK, STRIKE, OFFSET, CLUSTER, VENUE, CONTRACT, ATTRIBUTE,
) = range(len(NUMBERS))  # fmt: skip
INTEGERS, REALS, STORED = range(SEQ, PRICE), range(PRICE, OFFSET), CONTRACT


def reals(numbers: Integers, field: int) -> Floats:
    """Return a real row of a matrix."""
    values: Floats = numbers[field].view(np.float64)
    return values


@dataclass(frozen=True)
class Tail:
    """Prints in log order: columns start to end of a matrix with room behind them, and a frame of their ids.

    Prints are appended into the room, at which no earlier tail looks.
    """

    memory: Integers
    start: int
    end: int
    ids: pl.DataFrame

    @classmethod
    def empty(cls) -> Tail:
        return cls(np.empty((len(NUMBERS), 0), np.int64), 0, 0, pl.DataFrame(schema={"trace_id": pl.String}))

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def numbers(self) -> Integers:
        return self.memory[:, self.start : self.end]

    @property
    def offsets(self) -> Integers:
        return self.memory[OFFSET, self.start : self.end]

    @property
    def bounds(self) -> tuple[int, int]:
        """First and last offset of a tail that is not empty."""
        return int(self.memory[OFFSET, self.start]), int(self.memory[OFFSET, self.end - 1])

    def then(self, numbers: Sequence[Integers] | Integers, ids: pl.DataFrame) -> Tail:
        """Append prints, a sequence of values per row of the matrix."""
        added = len(numbers[0])
        if not added:
            return self
        memory, start, end = self.memory, self.start, self.end
        if end + added > memory.shape[1]:
            if len(self) + added > start:
                memory = np.empty((len(NUMBERS), max(3 * (len(self) + added), _LEAST_ROOM)), np.int64)
            memory[:, : len(self)] = self.numbers
            start, end = 0, len(self)
        for field, values in enumerate(numbers):
            memory[field, end : end + added] = values
        grown = self.ids.vstack(ids)
        return Tail(memory, start, end + added, grown.rechunk() if grown.n_chunks() > _MAX_CHUNKS else grown)

    def since(self, offset: int | None) -> Tail:
        """Drop prints before an offset, all of them for None."""
        first = self.place(offset) if offset is not None else len(self)
        return Tail(self.memory, self.start + first, self.end, self.ids[first:]) if first else self

    def place(self, offset: int) -> int:
        """Return the place of the first print at or after an offset."""
        return int(self.offsets.searchsorted(offset))

    def chunks(self, first_block: int, last_block: int) -> dict[bytes, bytes]:
        """Return the state rows of the chunks between two blocks, both included."""
        first, last = self.place(first_block * BLOCK_OFFSETS), self.place((last_block + 1) * BLOCK_OFFSETS)
        if first == last:
            return {}
        numbers, ids = self.numbers[:, first:last], PackedTexts(self.ids["trace_id"].slice(first, last - first))
        opens = np.flatnonzero(numbers[OFFSET] == numbers[CLUSTER])
        attributes = CONTRACTS.packed(numbers[ATTRIBUTE, opens])
        blocks = numbers[OFFSET] // BLOCK_OFFSETS
        cuts = np.concatenate(([0], np.flatnonzero(np.diff(blocks)) + 1, [blocks.size]))
        opened = opens.searchsorted(cuts).tolist()
        return {
            block_key(int(blocks[start])): msgspec.msgpack.encode(
                (numbers[:STORED, start:end].tobytes(), *ids.part(start, end), attributes[first_open:last_open])
            )
            for (start, end), (first_open, last_open) in zip(itertools.pairwise(cuts.tolist()), itertools.pairwise(opened), strict=True)
        }


def block_of(offset: int) -> int:
    """Return the block in which an offset lies."""
    return offset // BLOCK_OFFSETS


def block_key(block: int) -> bytes:
    """Return the key of a chunk's state row; keys ascend as blocks do."""
    return PREFIX + b"%016x" % block


def left_chunks(before: Tail, after: Tail) -> list[bytes]:
    """Return the keys of stored chunks that the tail has left."""
    if not len(before):
        return []
    left = before.offsets
    if len(after):
        left = left[: before.place(block_of(after.bounds[0]) * BLOCK_OFFSETS)]
    return [block_key(block) for block in np.unique(left // BLOCK_OFFSETS).tolist()]


def changed_chunks(before: Tail, rows: Tail, after: Tail) -> dict[bytes, bytes]:
    """Return the chunks that prints came into, and the first one when it was cut; `rows` is `before` with them, `after` its rest."""
    if not len(after):
        return {}
    changed: dict[bytes, bytes] = {}
    first, last = (block_of(offset) for offset in after.bounds)
    grown = last + 1
    if len(rows) > len(before):
        grown = max(block_of(int(rows.offsets[len(before)])), first)
        changed |= after.chunks(grown, last)
    if grown > first and len(before) and before.bounds[0] != after.bounds[0]:
        changed |= after.chunks(first, first)
    return changed


def load_tail(rows: Iterable[bytes]) -> Tail:
    """Read chunks back, in key order; contract and attributes are known for opening prints only."""
    tail = Tail.empty()
    for row in rows:
        packed, lengths, blob, attributes = msgspec.msgpack.decode(row, type=tuple[bytes, bytes, bytes, list[tuple[str | None, ...]]])
        stored = np.frombuffer(packed, np.int64).reshape(STORED, -1)
        numbers = np.full((len(NUMBERS), stored.shape[1]), -1, np.int64)
        numbers[:STORED] = stored
        opens = np.flatnonzero(stored[OFFSET] == stored[CLUSTER])
        texts = pl.DataFrame(attributes, schema=dict.fromkeys(ATTRIBUTES, pl.String), orient="row")
        numbers[CONTRACT, opens] = CONTRACTS.ids.of(texts["option_contract_id"])
        numbers[ATTRIBUTE, opens] = CONTRACTS.of(texts)
        tail = tail.then(numbers, pl.DataFrame({"trace_id": unpack_texts(lengths, blob)}, schema={"trace_id": pl.String}))
    return tail


class PackedTexts:
    """Texts as one run of bytes and their lengths, to be cut without touching a text."""

    def __init__(self, texts: pl.Series) -> None:
        if texts.len() < _FEW_TEXTS:
            encoded = [text.encode() for text in texts.to_list()]
            self._lengths, self._blob = np.array([len(text) for text in encoded], np.uint16), b"".join(encoded)
        else:
            packed = texts.to_frame("text").select(_PACKED)
            self._lengths, self._blob = packed["lengths"].item(0).to_numpy(), packed["blob"].item(0).encode()
        self.ends: Integers = np.concatenate(([0], np.cumsum(self._lengths, dtype=np.int64)))

    def part(self, start: int, end: int) -> tuple[bytes, bytes]:
        """Return the lengths and the bytes of texts start to end."""
        return self._lengths[start:end].tobytes(), self._blob[self.ends[start] : self.ends[end]]


def unpack_texts(lengths: bytes, blob: bytes) -> list[str]:
    """Read texts back."""
    ends = np.cumsum(np.frombuffer(lengths, np.uint16), dtype=np.int64).tolist()
    return [blob[start:end].decode() for start, end in itertools.pairwise([0, *ends])]
