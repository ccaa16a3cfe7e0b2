"""What an `apply` begins with: rows that count, and the ticks among them."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core import prints
from flowapp.core.fold import OFFSET, PARTITION
from flowapp.core.memory import Head, with_counts
from flowapp.core.tail import NO_INTEGER

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Rows of one partition whose seq rises within their run."""

    frame: pl.DataFrame
    partition: int
    rises: Flags | None
    """Which of the rows handed in are these; None for all."""
    offset: Integers
    flags: Integers
    tick_w: Integers
    """Ticks, each raised to the highest before it."""
    tick_offset: Integers
    ticks_before: Integers
    """Ticks before each row."""
    prior_w: Integers
    """Last tick before each row."""
    head: Head
    """Where the partition stands after the batch."""

    def number(self, name: str) -> Integers:
        """Return a prepared column; reals as their bits."""
        return self.frame[prints.PREFIX + name].to_numpy().view(np.int64)

    def counts(self) -> dict[str, int]:
        """Count rows by what they are."""
        bits = {"cancels": prints.CANCEL, "excluded": prints.EXCLUDED, "late": prints.LATE, "signal_prints": prints.PASS}
        return {"prints": self.flags.size - self.tick_w.size} | {
            name: int(np.count_nonzero(self.flags & bit)) for name, bit in bits.items()
        }


def take(frame: pl.DataFrame, head: Head) -> Batch:
    """Ignore rows whose seq does not rise within their run, and find the ticks."""
    partition = int(frame[PARTITION].item(0)) if frame.height else -1
    rises, runs = _rising(frame, dict(head.runs))
    if rises is not None:
        frame = frame.filter(pl.Series(rises))
    flags, offset = frame[prints.PREFIX + "flags"].to_numpy(), frame[OFFSET].to_numpy()
    is_tick = (flags & prints.IS_TICK) != 0
    ticks = np.flatnonzero(is_tick)
    tick_w = np.maximum.accumulate(np.append(head.last_w, frame[prints.PREFIX + "source_ts"].to_numpy()[ticks]))
    tick_offset = offset[ticks]
    ticks_before = np.cumsum(is_tick) - is_tick
    after = msgspec.structs.replace(
        head,
        last_w=int(tick_w[-1]),
        last_tick_offset=int(tick_offset[-1]) if ticks.size else head.last_tick_offset,
        runs=sorted(runs.items()),
    )
    if rises is not None:
        after = with_counts(after, {"ignored": int(np.count_nonzero(~rises))})
    return Batch(frame, partition, rises, offset, flags, tick_w[1:], tick_offset, ticks_before, tick_w[ticks_before], after)


def _rising(frame: pl.DataFrame, runs: dict[str, int]) -> tuple[Flags | None, dict[str, int]]:
    """Tell which rows' seq rises within their run (None: all), and return the runs' last seq."""
    if not frame.height:
        return None, runs
    seq, run = frame[prints.PREFIX + "seq"].to_numpy(), frame[prints.PREFIX + "run"].to_numpy()
    rises = np.ones(seq.size, np.bool_)
    for number in run[:1] if bool((run == run[0]).all()) else np.unique(run):
        mine = np.flatnonzero(run == number)
        name = str(frame["run"].item(int(mine[0])))
        highest = np.maximum.accumulate(np.append(runs.get(name, NO_INTEGER), seq[mine]))
        rises[mine] = seq[mine] > highest[:-1]
        runs = runs | {name: int(highest[-1])}
    return None if rises.all() else rises, runs
