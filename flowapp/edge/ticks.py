"""Where ticks stand: what the log of each partition says about how far time has come.

`Tick(w)` stands before the first record with an effective time above w. Which multiples of TICK_MS become a tick
depends only on the order of events, never on how they were cut into batches:

* of a partition with a record in the last 2 s, every multiple; of a silent one, one a second;
* when the whole feed is silent for longer than 2 s, only the last multiple before the next event
  (a live feed goes on ticking once a second by the wall clock).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowapp.edge.order import NEVER, Batch, Bools, Ints

ACTIVE_MS = 2_000
SILENT_TICK_MS = 1_000


@dataclass(frozen=True)
class Grid:
    """Multiples of TICK_MS that time has passed in a batch: `before` is the place of the event each stands in front of."""

    w: Ints
    before: Ints
    is_last: Bools


@dataclass(frozen=True)
class Placed:
    """A topic's ticks and which of its records stand at or below one, over all partitions."""

    w: Ints
    before: Ints
    partition: Ints
    late: Bools


class TickClock:
    """How far the merged feed has come."""

    def __init__(self, tick_ms: int, *, live: bool = False) -> None:
        self.tick_ms = tick_ms
        self._live = live
        self._newest = NEVER
        self._done = NEVER  # number of the last multiple that was looked at

    @property
    def newest(self) -> int:
        """Time of the newest event, ms."""
        return self._newest

    def advance(self, batch: Batch) -> Grid:
        """Return the multiples between the last batch's end and this one's."""
        times = batch.effective
        previous = np.concatenate(([self._newest], times))
        if times.size and self._done == NEVER:
            self._done = (int(times[0]) - 1) // self.tick_ms - 1
        below = (times - 1) // self.tick_ms
        passed = np.maximum.accumulate(np.concatenate(([self._done], below)))[:-1]
        turns = np.flatnonzero(below > passed)
        grid = self._between(passed[turns], below[turns], previous[turns], batch.index[turns], last=True)
        if times.size:
            self._newest, self._done = int(times[-1]), max(self._done, int(below[-1]))
        return _joined(grid, self._tail(batch.upto_ts, batch.size))

    def finish(self, wait_ms: int) -> Grid:
        """Return what closes everything that any fold may still hold `wait_ms` after the last event."""
        if self._newest == NEVER:
            return self._between(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), last=True)
        final = -(-(self._newest + wait_ms) // self.tick_ms)
        grid = self._between(*(np.array([value], np.int64) for value in (self._done, final, self._newest, 0)), last=True)
        self._done = final
        return grid

    def _tail(self, upto_ts: int, end: int) -> Grid:
        """Return the multiples behind the last event that need not wait for the next one."""
        limit = upto_ts if self._live else min(upto_ts, self._newest + ACTIVE_MS)
        final = limit // self.tick_ms
        if self._done == NEVER and self._live:
            self._done = final - 1
        done = self._done
        if done == NEVER or final <= done:
            final = done
        grid = self._between(*(np.array([value], np.int64) for value in (done, final, self._newest, end)), last=False)
        self._done = final
        return grid

    def _between(self, after: Ints, upto: Ints, previous: Ints, before: Ints, *, last: bool) -> Grid:
        """Return the multiples in each stretch (after, upto]; `previous` is the time of the event before it."""
        dense_end = upto if self._live else np.clip((previous + ACTIVE_MS) // self.tick_ms, after, upto)
        alone = (upto > dense_end) & last
        counts = dense_end - after + alone
        stretch = np.repeat(np.arange(counts.size), counts)
        number = np.arange(stretch.size) - np.repeat(np.cumsum(counts) - counts, counts)
        is_last = alone[stretch] & (number == counts[stretch] - 1)
        w = np.where(is_last, upto[stretch], after[stretch] + 1 + number) * self.tick_ms
        return Grid(w, before[stretch], is_last)


def _joined(first: Grid, second: Grid) -> Grid:
    return Grid(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in ("w", "before", "is_last")))


class TopicTicks:
    """A topic's ticks: of which partitions, how far each has ticked, when each last saw a record.

    Args:
        last: where each partition's ticks ended in the log, for a run that follows another one.
    """

    def __init__(self, partitions: list[int], tick_ms: int, last: dict[int, int] | None = None) -> None:
        self._partitions = partitions
        self._tick_ms = tick_ms
        self._last = {partition: (last or {}).get(partition, NEVER) for partition in partitions}
        self._record = dict.fromkeys(partitions, NEVER)

    def place(self, grid: Grid, partition: Ints, index: Ints, ts: Ints, suspect: Bools, moves: Bools) -> Placed:
        """Choose each partition's ticks and find late records.

        Args:
            partition, index, ts, suspect: of the records, ascending by index.
            moves: which of them make their partition an active one (prints do, quotes do not).
        """
        late = suspect.copy()
        w: list[Ints] = []
        before: list[Ints] = []
        second = grid.w // SILENT_TICK_MS != (grid.w - self._tick_ms) // SILENT_TICK_MS
        by_partition = np.argsort(partition, kind="stable")
        names = np.array(self._partitions, np.int64)
        starts, ends = (np.searchsorted(partition[by_partition], names, side) for side in ("left", "right"))
        for name, start, end in zip(self._partitions, starts, ends, strict=True):
            rows = by_partition[start:end]
            active = self._last_records(name, rows[moves[rows] & ~suspect[rows]], index, ts, grid.before)
            chosen = (grid.is_last | second | (grid.w <= active + ACTIVE_MS)) & (grid.w > self._last[name])
            mine, places = grid.w[chosen], grid.before[chosen]
            reached = np.concatenate(([self._last[name]], mine))[np.searchsorted(places, index[rows], "right")]
            late[rows] |= ts[rows] <= reached
            if mine.size:
                self._last[name] = int(mine[-1])
            w.append(mine)
            before.append(places)
        sizes = [part.size for part in w]
        return Placed(np.concatenate(w), np.concatenate(before), np.repeat(names, sizes), late)

    def _last_records(self, name: int, rows: Ints, index: Ints, ts: Ints, places: Ints) -> Ints:
        """Return the newest record's time of a partition at each place."""
        newest = np.maximum.accumulate(np.concatenate(([self._record[name]], ts[rows])))
        self._record[name] = int(newest[-1])
        return newest[np.searchsorted(index[rows], places, "left")]
