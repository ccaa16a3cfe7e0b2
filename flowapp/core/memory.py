"""What the options fold remembers of a partition, decoded; every part of it can be loaded from state rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core import prints, tail
from flowapp.core.clusters import starts_of
from flowapp.core.fold import State
from flowapp.core.money import STANDARD_MULTIPLIER, check_sums, dollars
from flowapp.core.numbering import VENUES
from flowapp.core.placement import BB, MID, MISSING, A, B
from flowapp.core.rules import OptionRules, SignalThresholds
from flowapp.core.signal import PASS_MASK, SignalInput, verdict
from flowapp.core.tail import Tail, load_tail

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

HEAD = b"head"
NEVER = -(2**62)
"""Before the first tick."""
COUNTERS = ("prints", "ignored", "cancels", "excluded", "late", "clusters", "late_clusters", "passed", "packets", "signal_prints")


class Head(msgspec.Struct, array_like=True):
    """Where a partition stands: last tick, last seq of each run, minutes with rows for cancels, venues in order
    of appearance, counts since the log's start."""

    last_w: int = NEVER
    last_tick_offset: int = -1
    runs: list[tuple[str, int]] = []
    kept: list[tuple[int, int]] = []
    venues: list[str] = []
    counts: list[int] = []


@dataclass(frozen=True)
class Venues:
    """Venues of a partition in order of appearance, and the place of each by its process-local number (-1: not seen)."""

    names: list[str]
    places: Integers

    @classmethod
    def of(cls, names: list[str]) -> Venues:
        numbers = VENUES.of(pl.Series(names, dtype=pl.String))
        places = np.full(int(numbers.max(initial=0)) + 1, -1, np.int64)
        places[numbers] = np.arange(len(names))
        return cls(names, places)

    def knows(self, numbers: Integers) -> bool:
        """Tell whether every venue has been seen."""
        return not numbers.size or (int(numbers.max()) < self.places.size and int(self.places[numbers].min()) >= 0)

    def learn(self, numbers: Integers, texts: pl.Series, rows: Integers) -> Venues:
        """Add venues in order of appearance; `texts` at `rows` are the venues of `numbers`."""
        _, first = np.unique(numbers, return_index=True)
        names = [str(texts.item(int(row))) for row in rows[np.sort(first)]]
        return Venues.of(list(dict.fromkeys([*self.names, *names])))


@dataclass(frozen=True)
class Sums:
    """What a verdict looks at, one value per cluster; of a print its own share."""

    flags: Integers
    micro: Integers
    alert_size: Integers
    alert_micro: Integers
    bought: Integers
    sold: Integers

    @classmethod
    def of_prints(cls, flags: Integers, size: Integers, micro: Integers) -> Sums:
        """Return each print's share."""
        alert = (flags & prints.ALERT) != 0
        side, placed = flags >> prints.SIDE_SHIFT & prints.SIDE_MASK, (flags & prints.PLACED) != 0
        bought, sold = placed & (side <= A), placed & ((side == B) | (side == BB))
        return cls(flags, micro, size * alert, micro * alert, size * bought, size * sold)

    @property
    def columns(self) -> tuple[Integers, ...]:
        return self.flags, self.micro, self.alert_size, self.alert_micro, self.bought, self.sold

    def then(self, later: Sums) -> Sums:
        return Sums(*(np.concatenate(pair) for pair in zip(self.columns, later.columns, strict=True)))

    def take(self, places: Integers | Flags) -> Sums:
        return Sums(*(column[places] for column in self.columns))

    def by_cluster(self, order: Integers | None, starts: Integers) -> Sums:
        """Sum up rows by cluster.

        Raises:
            FoldError: a cluster's premium does not fit into 64 bits.
        """
        flags, *numbers = self.columns if order is None else (column[order] for column in self.columns)
        check_sums(numbers[0], starts)
        return Sums(np.bitwise_or.reduceat(flags, starts), *(np.add.reduceat(column, starts) for column in numbers))


@dataclass(frozen=True)
class Open:
    """Open clusters: their names, contracts by process-local number, bounds, and sums so far."""

    name: Integers
    contract: Integers
    start_ts: Integers
    end_ts: Integers
    late: Flags
    sums: Sums

    def take(self, places: Integers | Flags) -> Open:
        return Open(
            self.name[places], self.contract[places], self.start_ts[places], self.end_ts[places], self.late[places], self.sums.take(places)
        )


@dataclass(frozen=True)
class Going:
    """Closed clusters that go on: held until decided, then candidates for a while."""

    name: Integers
    end_ts: Integers
    late: Flags
    mask: npt.NDArray[np.uint32]
    parent: Flags

    def take(self, places: Integers | Flags) -> Going:
        return Going(self.name[places], self.end_ts[places], self.late[places], self.mask[places], self.parent[places])

    def then(self, later: Going) -> Going:
        return Going(
            np.concatenate((self.name, later.name)),
            np.concatenate((self.end_ts, later.end_ts)),
            np.concatenate((self.late, later.late)),
            np.concatenate((self.mask, later.mask)),
            np.concatenate((self.parent, later.parent)),
        )


NO_SUMS = Sums(*(np.zeros(0, np.int64) for _ in range(6)))
_NO_INTEGERS, _NO_FLAGS = np.zeros(0, np.int64), np.zeros(0, np.bool_)
NONE_OPEN = Open(_NO_INTEGERS, _NO_INTEGERS, _NO_INTEGERS, _NO_INTEGERS, _NO_FLAGS, NO_SUMS)
NONE_GOING = Going(_NO_INTEGERS, _NO_INTEGERS, _NO_FLAGS, np.zeros(0, np.uint32), _NO_FLAGS)


@dataclass(frozen=True)
class Memory:
    """Decoded state of a partition. `held` waits for its decision, `candidates` have been decided."""

    head: Head
    venues: Venues = field(default_factory=lambda: Venues.of([]))
    tail: Tail = field(default_factory=Tail.empty)
    open: Open = NONE_OPEN
    held: Going = NONE_GOING
    candidates: Going = NONE_GOING


def judge_clusters(rules: OptionRules, parts: Sequence[Open]) -> list[Going]:
    """Return, per partition, those closed clusters that go on: a member passed, or the cluster itself passes."""
    flags = np.concatenate([part.sums.flags for part in parts])
    mask = (flags >> prints.REASON_SHIFT & prints.REASON_MASK).astype(np.uint32)
    member_passed = (flags & prints.PASS) != 0
    goes = member_passed.copy()
    if rules.rules.cluster_every_print:
        # Nothing below the floor passes, so it need not be asked.
        dollars_each = np.concatenate([_dollars(rules, part.sums) for part in parts])
        asked = np.flatnonzero(~member_passed & (dollars_each >= rules.thresholds.min_notional))
        if asked.size:
            columns = zip(*(part.sums.columns for part in parts), strict=True)
            mask[asked] = parent_masks(rules, Sums(*(np.concatenate(column)[asked] for column in columns)))
            goes[asked] = (mask[asked] & PASS_MASK) != 0
    out, end = [], 0
    for part in parts:
        mine = slice(end, end + part.name.size)
        end = mine.stop
        on = goes[mine]
        out.append(Going(part.name[on], part.end_ts[on], part.late[on], mask[mine][on], ~member_passed[mine][on]))
    return out


def parent_masks(rules: OptionRules, sums: Sums) -> npt.NDArray[np.uint32]:
    """Ask the signal decision of whole clusters."""
    placed = (sums.flags & prints.PLACED) != 0
    side = np.where(sums.bought > sums.sold, A, np.where(sums.sold > sums.bought, B, np.where(placed, MID, MISSING)))
    frame = pl.DataFrame(
        {
            "notional": _dollars(rules, sums),
            "side": side,
            "size": sums.alert_size,
            "is_etf": (sums.flags & prints.ETF) != 0,
            "is_sweep": (sums.flags & prints.SWEEP) != 0,
        }
    )
    return frame.select(_parent_verdict(rules.thresholds)).to_series().to_numpy()


def _dollars(rules: OptionRules, sums: Sums) -> Floats:
    """Notional of the prints that may alert."""
    return dollars(sums.alert_micro) * (1 if rules.rules.premium_in_dollars else STANDARD_MULTIPLIER)


@lru_cache(maxsize=16)
def _parent_verdict(limits: SignalThresholds) -> pl.Expr:
    of = SignalInput(*(pl.col(name) for name in ("notional", "side", "size", "is_etf", "is_sweep")))
    return verdict(limits, of) | pl.repeat(0, pl.len(), dtype=pl.UInt32)


def load(state: State, rules: OptionRules) -> Memory:
    """Read what is open, held or candidate."""
    row = state.get(HEAD)
    if row is None:
        return Memory(Head())
    head = msgspec.msgpack.decode(row, type=Head)
    venues = Venues.of(head.venues)
    rows = load_tail(chunk for _, chunk in state.scan(tail.PREFIX))
    if not len(rows):
        return Memory(head, venues, rows)
    clusters = _clusters(rows)
    newest = _newest_of_contract(clusters)
    by_tick = head.last_w >= clusters.start_ts + rules.window_ms
    closed = np.where(clusters.late, clusters.name < head.last_tick_offset, ~newest | by_tick)
    going = judge_clusters(rules, [clusters.take(closed & ~clusters.late)])[0]
    waits = going.end_ts + 2 * rules.window_ms > head.last_w
    stays = ~waits & (going.end_ts + 3 * rules.window_ms > head.last_w)
    return Memory(head, venues, rows, clusters.take(~closed), going.take(waits), going.take(stays))


def _clusters(rows: Tail) -> Open:
    """Take the clusters of a tail that still have their opening print."""
    cluster = rows.numbers[tail.CLUSTER]
    mine = np.flatnonzero(cluster >= rows.bounds[0])
    numbers = rows.numbers[:, mine[np.argsort(cluster[mine], kind="stable")]]
    starts = starts_of(numbers[tail.CLUSTER])
    first = numbers[:, starts]
    ends = np.maximum.reduceat(numbers[tail.SOURCE_TS], starts)
    late = (first[tail.FLAGS] & prints.LATE_CLUSTER) != 0
    sums = Sums.of_prints(numbers[tail.FLAGS], numbers[tail.SIZE], numbers[tail.MICRO]).by_cluster(None, starts)
    return Open(first[tail.CLUSTER], first[tail.CONTRACT], first[tail.SOURCE_TS], ends, late, sums)


def _newest_of_contract(clusters: Open) -> Flags:
    """Tell which clusters are their contract's latest; clusters ascend by name."""
    newest = np.zeros(clusters.name.size, np.bool_)
    regular = np.flatnonzero(~clusters.late)
    _, from_end = np.unique(clusters.contract[regular][::-1], return_index=True)
    newest[regular[::-1][from_end]] = True
    return newest


def with_counts(head: Head, added: dict[str, int]) -> Head:
    """Add to the counters."""
    counts = head.counts or [0] * len(COUNTERS)
    return msgspec.structs.replace(head, counts=[count + added.get(name, 0) for count, name in zip(counts, COUNTERS, strict=True)])
