"""The last quotes, joined at or before a trade.

A quote is usable for a trade when it was observed before it and is not newer. Of one instrument the book keeps the
last few quotes, each not older than the one before (an older straggler never replaces a newer quote), so both
conditions select a beginning of that sequence and the answer is the last quote of the shorter one. How far back a
join may reach is counted in quotes, so that the answer does not depend on how the feed was cut into batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from flowapp.edge.order import NEVER, Bools, Ints

Floats: TypeAlias = npt.NDArray[np.float64]
Objects: TypeAlias = npt.NDArray[np.object_]

DEPTH = 16
NO_NS = NEVER
NO_SIZE = -1
_PLACE_BITS = 32
_NS_PER_MS = 1_000_000


@dataclass(frozen=True)
class Quotes:
    """Quotes as columns, ascending by `place`, which orders quotes and trades of a batch.

    `ts_ns` is NO_NS where the feed has only ms; a NaN bid or ask says that there was no two-sided market. Venues and
    `origin` (how the quote was observed) are numbers of names.
    """

    place: Ints
    code: Ints
    ts: Ints
    ts_ns: Ints
    bid: Floats
    ask: Floats
    bid_size: Ints
    ask_size: Ints
    bid_venue: Ints
    ask_venue: Ints
    origin: Ints
    trace_id: Objects


@dataclass(frozen=True)
class Wanted:
    """Trades that want the quote at or before them; `ties`: one of their own time, observed before them, counts."""

    place: Ints
    code: Ints
    ts: Ints
    ts_ns: Ints
    ties: bool


@dataclass(frozen=True)
class Found:
    """For every trade whether there is a quote, whether it bears the trade's own time, and its columns."""

    exists: Bools
    tie: Bools
    columns: dict[str, npt.NDArray[Any]]


_COLUMNS: dict[str, Any] = {
    "ts": np.int64, "ts_ns": np.int64, "bid": np.float64, "ask": np.float64, "bid_size": np.int64, "ask_size": np.int64,
    "bid_venue": np.int64, "ask_venue": np.int64, "origin": np.int64, "trace_id": object,
}  # fmt: skip


@dataclass(frozen=True)
class _Fresh:
    """A batch's quotes by (instrument, place), older stragglers left out."""

    code: Ints
    key: Ints
    columns: dict[str, npt.NDArray[Any]]


class Book:
    """The last DEPTH quotes of every instrument; instruments are numbers from 0."""

    def __init__(self) -> None:
        self._capacity = 0
        self._count: Ints = np.empty(0, np.int64)
        self._newest_ns: Ints = np.empty(0, np.int64)
        self._ring: dict[str, npt.NDArray[Any]] = {name: np.empty((0, DEPTH), kind) for name, kind in _COLUMNS.items()}

    def step(self, quotes: Quotes, wanted: Sequence[Wanted], instruments: int) -> list[Found]:
        """Answer a batch's trades from the quotes before each, then keep the batch's quotes.

        Args:
            instruments: how many instruments there are by now.
        """
        self._grow(instruments)
        fresh = self._fresh(quotes)
        found = [self._find(fresh, trades) for trades in wanted]
        self._keep(fresh)
        return found

    def _fresh(self, quotes: Quotes) -> _Fresh:
        order = np.argsort(quotes.code, kind="stable")
        ns = _comparable_ns(quotes.ts[order], quotes.ts_ns[order])
        order = order[self._not_superseded(quotes.code[order], ns)]
        code = quotes.code[order]
        return _Fresh(code, (code << _PLACE_BITS) | quotes.place[order], {name: getattr(quotes, name)[order] for name in _COLUMNS})

    def _not_superseded(self, code: Ints, ns: Ints) -> Bools:
        """Find quotes that are not older than one of the same instrument observed earlier."""
        known: Bools = ns >= self._newest_ns[code]
        if not np.any((code[1:] == code[:-1]) & (ns[1:] < ns[:-1])):
            return known
        _, rank = np.unique(ns, return_inverse=True)
        key = (code << _PLACE_BITS) | rank
        return known & (key >= np.maximum.accumulate(key))

    def _find(self, fresh: _Fresh, trades: Wanted) -> Found:
        start = np.searchsorted(fresh.code, trades.code)
        before = np.searchsorted(fresh.key, (trades.code << _PLACE_BITS) | trades.place) - start
        ordinal = self._count[trades.code] + before - 1
        lowest = np.maximum(ordinal - DEPTH + 1, 0)
        exists, tie = np.zeros(ordinal.size, bool), np.zeros(ordinal.size, bool)
        open_ = np.flatnonzero(ordinal >= lowest)
        while open_.size:
            ts, ns = (self._gather(fresh, name, trades.code[open_], ordinal[open_], start[open_]) for name in ("ts", "ts_ns"))
            difference = _age(trades.ts[open_], trades.ts_ns[open_], ts, ns)
            usable = (difference > 0) | ((difference == 0) & trades.ties)
            exists[open_[usable]], tie[open_[usable]] = True, difference[usable] == 0
            open_ = open_[~usable]
            ordinal[open_] -= 1
            open_ = open_[ordinal[open_] >= lowest[open_]]
        at = np.flatnonzero(exists)
        columns = {name: self._gather(fresh, name, trades.code[at], ordinal[at], start[at]) for name in _COLUMNS}
        return Found(exists, tie, columns)

    def _gather(self, fresh: _Fresh, name: str, code: Ints, ordinal: Ints, start: Ints) -> npt.NDArray[Any]:
        row = ordinal - self._count[code]
        new = row >= 0
        values = np.empty(code.size, _COLUMNS[name])
        values[new] = fresh.columns[name][(start + row)[new]]
        values[~new] = self._ring[name][code[~new], ordinal[~new] % DEPTH]
        return values

    def _keep(self, fresh: _Fresh) -> None:
        if not fresh.code.size:
            return
        ends = np.append(np.flatnonzero(fresh.code[1:] != fresh.code[:-1]), fresh.code.size - 1)
        starts = np.searchsorted(fresh.code, fresh.code)
        ordinal = self._count[fresh.code] + np.arange(fresh.code.size) - starts
        for name, values in fresh.columns.items():
            # Of several values for one slot the last one stays, as wanted.
            self._ring[name][fresh.code, ordinal % DEPTH] = values
        last = fresh.code[ends]
        self._count[last] = ordinal[ends] + 1
        self._newest_ns[last] = _comparable_ns(fresh.columns["ts"][ends], fresh.columns["ts_ns"][ends])

    def _grow(self, instruments: int) -> None:
        if instruments <= self._capacity:
            return
        more = max(instruments, 2 * self._capacity, 256) - self._capacity
        self._capacity += more
        self._count = np.concatenate((self._count, np.zeros(more, np.int64)))
        self._newest_ns = np.concatenate((self._newest_ns, np.full(more, NEVER, np.int64)))
        self._ring = {name: np.concatenate((ring, np.empty((more, DEPTH), ring.dtype))) for name, ring in self._ring.items()}


def _comparable_ns(ts: Ints, ts_ns: Ints) -> Ints:
    return np.where(ts_ns == NO_NS, ts * _NS_PER_MS, ts_ns)


def _age(ts: Ints, ts_ns: Ints, quote_ts: Ints, quote_ts_ns: Ints) -> Ints:
    """Return how much older than the trade its quote is, in the finest unit that both have; only the sign counts."""
    both = (ts_ns != NO_NS) & (quote_ts_ns != NO_NS)
    return np.where(both, ts_ns - np.where(both, quote_ts_ns, 0), ts - quote_ts)
