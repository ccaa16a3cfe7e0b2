"""The newest clustered prints of a partition: everything from the oldest print that an open, held or candidate cluster needs.

Open and held clusters are functions of these rows and of the last tick, so the rows are the state; sums are taken anew
when it is loaded. Rows lie in chunks of BLOCK_OFFSETS log offsets, a state row each: a chunk is written while prints
come into it, cut at the tail's first row, and deleted when the tail has left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PREFIX = b"tail:"
BLOCK_OFFSETS = 512
NO_INTEGER = -(2**63)
"""Null of an integer; null of a real is NaN."""
_MAX_CHUNKS = 24

# Rows of the number matrix. CLUSTER is the offset of the print that opened the row's cluster, which names it.
NUMBERS = (
    "offset", "cluster", "flags", "micro", "seq", "source_ts", "ingest_ts", "size", "nbbo_bid_size", "nbbo_ask_size", "nbbo_ts",
    "underlying_ts", "multiplier", "expires_at", "price", "nbbo_bid", "nbbo_ask", "underlying_bid", "underlying_ask", "strike",
)  # fmt: skip
(
    OFFSET, CLUSTER, FLAGS, MICRO, SEQ, SOURCE_TS, INGEST_TS, SIZE, BID_SIZE, ASK_SIZE, QUOTE_TS,
    UNDERLYING_TS, MULTIPLIER, EXPIRES_AT, PRICE, BID, ASK, UNDERLYING_BID, UNDERLYING_ASK, STRIKE,
) = range(len(NUMBERS))  # fmt: skip
FIRST_REAL = PRICE
COPIED = range(SEQ, len(NUMBERS))
"""Numbers taken from the print's column of the same name."""

MEMBER_TEXTS = ("trace_id", "exchange")
OPENER_TEXTS = ("option_contract_id", "underlying_id", "root", "expiry", "option_type")
TEXTS = (*MEMBER_TEXTS, *OPENER_TEXTS)
_NULL_LENGTH = 0xFFFF


@dataclass(frozen=True)
class Tail:
    """Rows in log order: a matrix of numbers (reals as their bits) and a frame of texts."""

    numbers: Integers
    texts: pl.DataFrame

    @classmethod
    def empty(cls) -> Tail:
        return cls(np.empty((len(NUMBERS), 0), np.int64), pl.DataFrame(schema=dict.fromkeys(TEXTS, pl.String)))

    def __len__(self) -> int:
        return int(self.numbers.shape[1])

    @property
    def offsets(self) -> Integers:
        return self.numbers[OFFSET]

    def real(self, field: int) -> Floats:
        return self.numbers[field].view(np.float64)

    def then(self, later: Tail) -> Tail:
        """Append rows."""
        if not len(self):
            return later
        texts = self.texts.vstack(later.texts)
        return Tail(np.concatenate((self.numbers, later.numbers), axis=1), texts.rechunk() if texts.n_chunks() > _MAX_CHUNKS else texts)

    def since(self, offset: int | None) -> Tail:
        """Drop rows before an offset, all of them for None."""
        first = len(self) if offset is None else int(np.searchsorted(self.offsets, offset))
        return self if not first else Tail(np.ascontiguousarray(self.numbers[:, first:]), self.texts[first:])

    def positions(self, offsets: Integers) -> Integers:
        """Return where rows stand whose offsets are known to be here."""
        return np.searchsorted(self.offsets, offsets)

    def blocks(self) -> tuple[int, int] | None:
        """Return the first and the last block."""
        return (int(self.offsets[0]) // BLOCK_OFFSETS, int(self.offsets[-1]) // BLOCK_OFFSETS) if len(self) else None

    def chunks(self, since: int) -> dict[bytes, bytes]:
        """Return the state rows of the chunks from block `since` on."""
        first = int(np.searchsorted(self.offsets, since * BLOCK_OFFSETS))
        return self._chunks(first, len(self)) if first < len(self) else {}

    def first_chunk(self) -> bytes:
        """Return the state row of the first chunk."""
        block = int(self.offsets[0]) // BLOCK_OFFSETS
        return self._chunks(0, int(np.searchsorted(self.offsets, (block + 1) * BLOCK_OFFSETS)))[block_key(block)]

    def _chunks(self, first: int, last: int) -> dict[bytes, bytes]:
        numbers, texts = self.numbers[:, first:last], self.texts[first:last]
        opens = numbers[OFFSET] == numbers[CLUSTER]
        opener_texts = texts.select(OPENER_TEXTS).filter(pl.Series(opens))
        members, openers = [_Packed.of(texts[name]) for name in MEMBER_TEXTS], [_Packed.of(column) for column in opener_texts]
        blocks = numbers[OFFSET] // BLOCK_OFFSETS
        starts = np.concatenate(([0], np.flatnonzero(np.diff(blocks)) + 1, [blocks.size]))
        opened = np.concatenate(([0], np.cumsum(opens)))[starts].tolist()
        rows = {}
        for place, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            parts = [packed.part(start, end) for packed in members]
            parts += [packed.part(opened[place], opened[place + 1]) for packed in openers]
            rows[block_key(int(blocks[start]))] = msgspec.msgpack.encode((numbers[:, start:end].tobytes(), parts))
        return rows


def block_key(block: int) -> bytes:
    """Return the key of a chunk's state row; keys ascend as blocks do."""
    return PREFIX + b"%016x" % block


def load_tail(rows: Iterable[bytes]) -> Tail:
    """Read chunks back, in key order."""
    tails = [_load_chunk(row) for row in rows]
    if not tails:
        return Tail.empty()
    return Tail(np.concatenate([tail.numbers for tail in tails], axis=1), pl.concat([tail.texts for tail in tails], rechunk=True))


def _load_chunk(row: bytes) -> Tail:
    packed, parts = msgspec.msgpack.decode(row, type=tuple[bytes, list[tuple[bytes, bytes]]])
    numbers = np.frombuffer(packed, np.int64).reshape(len(NUMBERS), -1).copy()
    opens = np.flatnonzero(numbers[OFFSET] == numbers[CLUSTER])
    columns = {name: unpack_texts(*part) for name, part in zip(MEMBER_TEXTS, parts, strict=False)}
    for name, part in zip(OPENER_TEXTS, parts[len(MEMBER_TEXTS) :], strict=True):
        texts: list[str | None] = [None] * numbers.shape[1]
        for place, text in zip(opens.tolist(), unpack_texts(*part), strict=True):
            texts[place] = text
        columns[name] = texts
    return Tail(numbers, pl.DataFrame(columns, schema=dict.fromkeys(TEXTS, pl.String)))


@dataclass(frozen=True)
class _Packed:
    """Texts as one run of bytes and their lengths, cut without touching a text."""

    lengths: npt.NDArray[np.uint16]
    ends: Sequence[int]
    blob: bytes

    @classmethod
    def of(cls, texts: pl.Series) -> _Packed:
        lengths = texts.str.len_bytes()
        ends = lengths.fill_null(0).cum_sum().cast(pl.Int64).to_numpy()
        blob = (texts.str.join("").item(0) or "") if texts.len() else ""
        return cls(lengths.fill_null(_NULL_LENGTH).cast(pl.UInt16).to_numpy(), [0, *ends.tolist()], blob.encode())

    def part(self, start: int, end: int) -> tuple[bytes, bytes]:
        return self.lengths[start:end].tobytes(), self.blob[self.ends[start] : self.ends[end]]


def pack_texts(texts: pl.Series, cuts: Sequence[int]) -> list[tuple[bytes, bytes]]:
    """Return the texts between consecutive cuts, each as lengths and bytes."""
    packed = _Packed.of(texts)
    return [packed.part(start, end) for start, end in zip(cuts[:-1], cuts[1:], strict=True)]


def unpack_texts(lengths: bytes, blob: bytes) -> list[str | None]:
    """Read texts back."""
    texts: list[str | None] = []
    place = 0
    for length in np.frombuffer(lengths, np.uint16).tolist():
        if length == _NULL_LENGTH:
            texts.append(None)
            continue
        texts.append(blob[place : place + length].decode())
        place += length
    return texts
