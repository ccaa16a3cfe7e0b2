"""Which cluster a print belongs to: windows anchored at a contract's first print, found in columns.

A cluster is named by the log offset of the print that opened it. Contracts are numbers that hold in this process only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Arrivals:
    """Prints in log order, behind the clusters that were open before them (those first, one row each)."""

    contract: Integers
    ts: Integers
    """Print time; of a carried cluster its start."""
    name: Integers
    """Offset of the print; of a carried cluster its name."""
    late: Flags
    """Late print; carried cluster of late prints."""
    prior_w: Integers
    """Last tick before the print."""
    ticks: Integers
    """Ticks of this batch before the print."""
    carried: int
    """How many rows are carried clusters."""


@dataclass(frozen=True)
class Grouping:
    """Rows brought together by cluster: `order` cut at `starts`; what follows is per cluster."""

    order: Integers
    starts: Integers
    name: Integers
    late: Flags
    """Made of late prints that found no open cluster."""
    superseded: Flags
    """Closed by a later print of its contract."""

    def of_rows(self, values: Integers) -> Integers:
        """Spread a value per cluster over rows, in the rows' own order."""
        spread = np.empty(self.order.size, values.dtype)
        spread[self.order] = np.repeat(values, lengths_of(self.starts, self.order.size))
        return spread


def group(arrivals: Arrivals, window_ms: int) -> Grouping:
    """Assign every row to its cluster."""
    order = _stable_order(arrivals.contract)
    contract, ts = arrivals.contract[order], arrivals.ts[order]
    first = np.ones(order.size, np.bool_)
    first[1:] = contract[1:] != contract[:-1]
    gap = np.zeros_like(ts)
    np.subtract(ts[1:], ts[:-1], out=gap[1:])
    slow = arrivals.late[order] | ((gap < 0) & ~first)
    cut = first | (gap > window_ms)
    if not slow.any():
        return _group_in_order(arrivals, order, first, ts, cut, window_ms)
    return _group_with_stragglers(arrivals, order, first, ts, cut, slow, window_ms)


def starts_of(values: npt.NDArray[np.generic]) -> Integers:
    """Return where runs of equal values begin."""
    begins = np.ones(values.size, np.bool_)
    np.not_equal(values[1:], values[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def lengths_of(starts: Integers, size: int) -> Integers:
    """Return how long the runs are that begin at `starts`."""
    lengths = np.empty_like(starts)
    np.subtract(starts[1:], starts[:-1], out=lengths[:-1])
    lengths[-1:] = size - starts[-1:]
    return lengths


def _stable_order(contract: Integers) -> Integers:
    """Sort by contract, log order kept: the row's place stands in the key's low bits."""
    bits = int(contract.size).bit_length()
    key = (contract << bits) | np.arange(contract.size)
    key.sort()
    return key & ((1 << bits) - 1)


def _cut_long_stretches(ts: Integers, cut: Flags, starts: Integers, window_ms: int) -> Integers:
    """Cut stretches longer than the window where it ends; return all starts."""
    ends = np.append(starts[1:], ts.size)
    long = np.flatnonzero(ts[ends - 1] - ts[starts] > window_ms)
    for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True):
        times = ts[start:end]
        place = int(times.searchsorted(times[0] + window_ms, side="right"))
        while place < end - start:
            cut[start + place] = True
            place = int(times.searchsorted(times[place] + window_ms, side="right"))
    return np.flatnonzero(cut) if long.size else starts


def _group_in_order(arrivals: Arrivals, order: Integers, first: Flags, ts: Integers, cut: Flags, window_ms: int) -> Grouping:
    starts = _cut_long_stretches(ts, cut, np.flatnonzero(cut), window_ms)
    superseded = np.append(~first[starts[1:]], False)
    return Grouping(order, starts, arrivals.name[order[starts]], np.zeros(starts.size, np.bool_), superseded)


def _group_with_stragglers(
    arrivals: Arrivals, order: Integers, first: Flags, ts: Integers, cut: Flags, slow: Flags, window_ms: int
) -> Grouping:
    number = np.cumsum(first) - 1
    slow = np.isin(number, number[slow])
    fast_order, slow_order = order[~slow], order[slow]
    fast = _group_in_order(arrivals, fast_order, first[~slow], ts[~slow], cut[~slow], window_ms) if fast_order.size else None
    names, late, superseded = _walk(arrivals, slow_order, first[slow], window_ms)
    by_name = np.argsort(names, kind="stable")
    slow_order, names, late = slow_order[by_name], names[by_name], late[by_name]
    starts = starts_of(names)
    walked = Grouping(slow_order, starts, names[starts], late[starts], np.isin(names[starts], superseded))
    if fast is None:
        return walked
    return Grouping(
        np.concatenate((fast.order, walked.order)),
        np.concatenate((fast.starts, walked.starts + fast.order.size)),
        np.concatenate((fast.name, walked.name)),
        np.concatenate((fast.late, walked.late)),
        np.concatenate((fast.superseded, walked.superseded)),
    )


def _walk(arrivals: Arrivals, order: Integers, first: Flags, window_ms: int) -> tuple[Integers, Flags, Integers]:
    """Go row by row through contracts with a late or out-of-order print."""
    rows = zip(
        first.tolist(), order.tolist(), arrivals.ts[order].tolist(), arrivals.name[order].tolist(), arrivals.late[order].tolist(),
        arrivals.prior_w[order].tolist(), arrivals.ticks[order].tolist(), strict=True,
    )  # fmt: skip
    names: list[int] = []
    in_late: list[bool] = []
    superseded: list[int] = []
    name, start = -1, 0
    late_name, late_ticks = -1, 0
    for is_first, place, ts, offset, late, prior_w, ticks in rows:
        if is_first:
            name = late_name = -1
        if place < arrivals.carried:
            if late:
                late_name, late_ticks = offset, 0
            else:
                name, start = offset, ts
            names.append(offset)
            in_late.append(late)
            continue
        joins = name >= 0 and ts <= start + window_ms
        if late:
            joins = joins and start <= ts and prior_w < start + window_ms
            if not joins and (late_name < 0 or late_ticks != ticks):
                late_name, late_ticks = offset, ticks
        elif not joins:
            if name >= 0:
                superseded.append(name)
            name, start, joins = offset, ts, True
        names.append(name if joins else late_name)
        in_late.append(not joins)
    return np.array(names, np.int64), np.array(in_late, np.bool_), np.array(superseded, np.int64)
