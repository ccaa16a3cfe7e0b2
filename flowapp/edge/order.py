"""One order for everything the edge observes: a reorder buffer for each adapter, and their merge by time.

Every event has an *effective* time that never falls from one event to the next: its own time, or, when it arrives
later than the buffer waits, the time the buffer had reached. Events leave in order of (effective time, n), so that the
order is a property of the feed and not of how its chunks were cut.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.edge.adapters.base import EQUITY_QUOTES, EQUITY_TRADES, OPTION_QUOTES, OPTION_TRADES, Chunk

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

OPTION_TRADE, OPTION_QUOTE, EQUITY_TRADE, EQUITY_QUOTE = range(4)
KINDS = (OPTION_TRADE, OPTION_QUOTE, EQUITY_TRADE, EQUITY_QUOTE)
SCHEMAS = (OPTION_TRADES, OPTION_QUOTES, EQUITY_TRADES, EQUITY_QUOTES)

LIVE_AHEAD_MS = 5_000
FILE_AHEAD_MS = 5 * 86_400_000
NEVER = -(2**62)
FOREVER = 2**62


@dataclass(frozen=True)
class Part:
    """Events of one kind in order: their frame, place in the batch, effective time, and whose time is not credible."""

    frame: pl.DataFrame
    index: Ints
    effective: Ints
    suspect: Bools
    arrival: Ints

    @property
    def size(self) -> int:
        return self.frame.height

    def take(self, rows: Ints) -> Part:
        """Return some rows, ascending."""
        if rows.size == self.size:
            return self
        return Part(self.frame[rows], self.index[rows], self.effective[rows], self.suspect[rows], self.arrival[rows])


@dataclass(frozen=True)
class Batch:
    """Events of all kinds that may leave now; `effective` is that of all of them in order, suspect ones excepted."""

    parts: tuple[Part, Part, Part, Part]
    effective: Ints
    index: Ints
    upto_ts: int

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


@dataclass
class _Held:
    """A chunk's events, sorted; what stands before a kind's cursor has left."""

    frames: list[pl.DataFrame]
    n: list[Ints]
    effective: list[Ints]
    suspect: list[Bools]
    arrival: list[Ints]
    cursor: list[int]
    first: int
    last: int


class Sequencer:
    """The reorder buffer of one adapter.

    Args:
        reorder_ms: how long to wait for stragglers.
        live: whether the wall clock, not the feed's own progress, says how long that is.
    """

    def __init__(self, reorder_ms: int = 0, *, live: bool = False) -> None:
        self._reorder_ms = reorder_ms
        self._live = live
        self._newest = NEVER
        self._previous = NEVER
        self._held: deque[_Held] = deque()
        self.upto_ts = NEVER
        self.ended = False

    def push(self, chunk: Chunk, now_ms: int = 0) -> None:
        """Take a chunk; `now_ms` is the wall clock, which counts for live feeds."""
        frames = [chunk.option_trades, chunk.option_quotes, chunk.equity_trades, chunk.equity_quotes]
        if any(frame.height for frame in frames):
            self._hold(self._sequence(frames, now_ms))
        if self._live:
            self.upto_ts = max(self.upto_ts, now_ms - self._reorder_ms)
        else:
            self.upto_ts = max(self.upto_ts, chunk.upto_ts - self._reorder_ms)

    def end(self) -> None:
        """Say that nothing follows: all may leave."""
        self.ended = True
        # A live feed's time goes no further than its events.
        self.upto_ts = max([self.upto_ts, *(held.last for held in self._held)]) if self._live else FOREVER

    @property
    def next_effective(self) -> int:
        """Effective time of the first event held."""
        return min((held.first for held in self._held), default=FOREVER)

    def _sequence(self, frames: list[pl.DataFrame], now_ms: int) -> _Held:
        n = [frame["n"].to_numpy() for frame in frames]
        ts = [frame["source_ts"].to_numpy() for frame in frames]
        all_n, all_ts = np.concatenate(n), np.concatenate(ts)
        order = np.argsort(all_n, kind="stable")
        effective, suspect = self._effective(all_ts[order], now_ms)
        back = np.empty(order.size, np.int64)
        back[order] = np.arange(order.size)
        bounds = np.cumsum([0, *(part.size for part in n)])
        places = [back[bounds[i] : bounds[i + 1]] for i in KINDS]
        held = _Held(
            list(frames), n, [effective[at] for at in places], [suspect[at] for at in places],
            [np.full(at.size, now_ms, np.int64) for at in places], [0] * 4, int(effective.min()), int(effective.max()),
        )  # fmt: skip
        return _sorted(held)

    def _effective(self, ts: Ints, now_ms: int) -> tuple[Ints, Bools]:
        """Return effective times and suspects of times in feed order."""
        if self._live:
            suspect = ts > now_ms + LIVE_AHEAD_MS
            reached: Ints = np.full(ts.size, now_ms - self._reorder_ms, np.int64)
            return np.where(suspect, reached, np.maximum(ts, reached)), suspect
        previous = np.concatenate(([self._previous], ts[:-1]))
        suspect = (previous != NEVER) & (ts - FILE_AHEAD_MS > previous)
        self._previous = int(ts[-1])
        credible = np.where(suspect, NEVER, ts)
        newest = np.maximum.accumulate(np.concatenate(([self._newest], credible)))
        self._newest = int(newest[-1])
        return np.where(suspect, newest[1:], np.maximum(ts, newest[1:] - self._reorder_ms)), suspect

    def _hold(self, new: _Held) -> None:
        if self._held and new.first < self._held[-1].last:
            new = _sorted(_joined([*(_rest(held) for held in self._held), new]))
            self._held.clear()
        self._held.append(new)

    def take(self, upto_ts: int) -> list[_Held]:
        """Return events with effective time <= `upto_ts`, in order."""
        taken = []
        while self._held and self._held[0].first <= upto_ts:
            held = self._held[0]
            if held.last <= upto_ts:
                taken.append(_rest(self._held.popleft()))
                continue
            ends = [int(np.searchsorted(held.effective[kind], upto_ts, "right")) for kind in KINDS]
            taken.append(_slice(held, held.cursor, ends))
            held.cursor = ends
            held.first = min(int(held.effective[kind][ends[kind]]) for kind in KINDS if ends[kind] < held.effective[kind].size)
            break
        return taken


def _slice(held: _Held, starts: list[int], ends: list[int]) -> _Held:
    cut = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    return _Held(
        [held.frames[k][cut[k]] for k in KINDS], [held.n[k][cut[k]] for k in KINDS], [held.effective[k][cut[k]] for k in KINDS],
        [held.suspect[k][cut[k]] for k in KINDS], [held.arrival[k][cut[k]] for k in KINDS], [0] * 4, held.first, held.last,
    )  # fmt: skip


def _rest(held: _Held) -> _Held:
    return held if not any(held.cursor) else _slice(held, held.cursor, [part.size for part in held.effective])


def _sorted(held: _Held) -> _Held:
    """Sort each kind by (effective time, n) unless it is so already."""
    for kind in KINDS:
        effective, n = held.effective[kind], held.n[kind]
        if effective.size < 2 or (np.all(effective[1:] >= effective[:-1]) and np.all(n[1:] >= n[:-1])):
            continue
        order = np.lexsort((n, effective))
        held.frames[kind] = held.frames[kind][order]
        held.n[kind], held.effective[kind] = n[order], effective[order]
        held.suspect[kind], held.arrival[kind] = held.suspect[kind][order], held.arrival[kind][order]
    return held


def _joined(parts: list[_Held]) -> _Held:
    return _Held(
        [pl.concat([part.frames[k] for part in parts]) for k in KINDS], [np.concatenate([part.n[k] for part in parts]) for k in KINDS],
        [np.concatenate([part.effective[k] for part in parts]) for k in KINDS],
        [np.concatenate([part.suspect[k] for part in parts]) for k in KINDS],
        [np.concatenate([part.arrival[k] for part in parts]) for k in KINDS], [0] * 4,
        min(part.first for part in parts), max(part.last for part in parts),
    )  # fmt: skip


def release(sequencers: list[Sequencer], upto_ts: int = FOREVER) -> Batch:
    """Merge what several adapters may let go up to a time; of equal effective times the first adapter's come first."""
    reached = min(*(sequencer.upto_ts for sequencer in sequencers), upto_ts)
    parts = [(source, part) for source, sequencer in enumerate(sequencers) for part in sequencer.take(reached)]
    if not parts:
        empty = np.empty(0, np.int64)
        none = tuple(Part(pl.DataFrame(schema=schema), empty, empty, empty.astype(bool), empty) for schema in SCHEMAS)
        return Batch(none, empty, empty, reached)  # type: ignore[arg-type]
    joined = parts[0][1] if len(parts) == 1 else _joined([part for _, part in parts])
    effective, n = np.concatenate(joined.effective), np.concatenate(joined.n)
    if len(sequencers) == 1:
        order = np.argsort(n, kind="stable")
        if np.any(effective[order][1:] < effective[order][:-1]):
            order = np.lexsort((n, effective))
    else:
        source = np.concatenate([np.full(part.n[kind].size, number) for kind in KINDS for number, part in parts])
        order = np.lexsort((n, source, effective))
    index = np.empty(order.size, np.int64)
    index[order] = np.arange(order.size)
    bounds = np.cumsum([0, *(part.size for part in joined.n)])
    credible = order[~np.concatenate(joined.suspect)[order]]
    pieces = []
    for kind in KINDS:
        at = index[bounds[kind] : bounds[kind + 1]]
        columns = (joined.frames[kind], at, joined.effective[kind], joined.suspect[kind], joined.arrival[kind])
        if at.size > 1 and not np.all(at[1:] > at[:-1]):
            by_place = np.argsort(at)
            columns = tuple(column[by_place] for column in columns)  # type: ignore[assignment]
        pieces.append(Part(*columns))
    return Batch(tuple(pieces), effective[credible], index[credible], reached)  # type: ignore[arg-type]
