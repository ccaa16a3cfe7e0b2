"""The options agent: prints to clusters, clusters to packets (architecture section 6, "The options fold")."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp import topics
from flowapp.core import kept, prints, tail
from flowapp.core.clusters import Arrivals, group, starts_of
from flowapp.core.fold import ERROR, OFFSET, PARTITION, Result, State
from flowapp.core.memory import HEAD, Going, Head, Memory, Open, Sums, judge_clusters, load, with_counts
from flowapp.core.numbering import CONTRACTS
from flowapp.core.packets import Decided, Members, packet_frame
from flowapp.core.prints import is_stamped, stamp
from flowapp.core.rules import OptionRules, RuleSet
from flowapp.core.tail import NO_INTEGER, Tail
from flowapp.records.schemas import frame_schema
from flowapp.settings import Settings

__all__ = ["OptionsFold", "stamp"]

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_COPIED = tuple(name for name in tail.NUMBERS if name not in ("flags", "offset", "cluster", "venue"))
_SIGNAL_SCHEMA = frame_schema("SignalPrint")
_PRINT_COLUMNS = [name for name in frame_schema("OptionPrint") if name != "config"]
_LEAST_CONSTANTS = 256
_BY_CONTRACT = pl.arg_sort_by("tie", "contract")


@dataclass(frozen=True)
class _Batch:
    """Rows of one `apply` that count, and the ticks among them."""

    frame: pl.DataFrame
    partition: int
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


class OptionsFold:
    """The fold over `options.prints`."""

    name = "options"
    input_topic = topics.OPTIONS_PRINTS
    version = 1

    def __init__(self, settings: Settings, rules: RuleSet | None = None) -> None:
        self._rules = OptionRules.of(settings, rules)
        self._window_ms = self._rules.window_ms
        self.rules = self._rules.rules.name
        self.config = self._rules.config

    def judge(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Stamp prints that another configuration stamped, find what is invalid, and prepare the numbers `apply` works on."""
        judged = frame if is_stamped(frame, self.config) else stamp(frame, self._rules)
        numbers, parses = prints.prepare(judged, self._rules)
        return judged.hstack([*numbers, prints.errors(judged, parses).alias(ERROR)])

    def apply(self, frame: pl.DataFrame, state: State) -> Result:
        """Fold valid rows of one partition, in log order."""
        memory = state.memory if isinstance(state.memory, Memory) else load(state, self._rules)
        batch = _take(frame, memory.head)
        venues, places = memory.venues, np.flatnonzero(batch.flags & prints.INPUT)
        venue = batch.number("venue")[places]
        if not venues.knows(venue):
            venues = venues.learn(venue, batch.frame["exchange"], places)
        rows, closed, still_open = self._cluster(batch, memory, places, venues.places[venue])
        closed_going = judge_clusters(self._rules, closed)
        waiting = memory.held.then(closed_going)
        due = self._due(batch, waiting)
        ready = due < batch.tick_w.size
        order = _decision_order(rows, waiting, due, np.flatnonzero(ready))
        decided = waiting.take(order)
        outputs, kept_rows = self._packets(batch, rows, decided, due[order])
        outputs[topics.OPTIONS_SIGNAL] = signal = self._signal_prints(batch)
        counts = _counts(batch, closed) | {"passed": closed_going.name.size, "packets": order.size, "signal_prints": signal.height}
        head, changed, deleted = self._kept(batch.head, kept_rows)
        head = with_counts(msgspec.structs.replace(head, venues=venues.names), counts)
        candidates = memory.candidates.then(decided.take(~decided.late))
        candidates = candidates.take(candidates.end_ts + 3 * self._window_ms > head.last_w)
        held = waiting.take(~ready)
        needed = np.concatenate((still_open.name, held.name, candidates.name))
        remembered = rows.since(int(needed.min()) if needed.size else None)
        deleted += _left_chunks(memory.tail, remembered)
        changed |= _changed_chunks(memory.tail, rows, remembered)
        changed[HEAD] = msgspec.msgpack.encode(head)
        state.memory = Memory(head, venues, remembered, still_open, held, candidates)
        return Result(outputs, changed, deleted)

    def _cluster(self, batch: _Batch, memory: Memory, places: Integers, venue: Integers) -> tuple[Tail, Open, Open]:
        """Put new prints into clusters; return the tail with them, the clusters that closed, and those still open."""
        before = memory.open
        if not places.size and not before.name.size:
            return memory.tail, before, before
        numbers = {name: batch.number(name)[places] for name in _COPIED}
        ts, offset, flags = numbers["source_ts"], batch.offset[places], batch.flags[places]
        prior_w, none = batch.prior_w[places], np.zeros(before.name.size, np.int64)
        late = ((flags & prints.LATE) != 0) | (ts <= prior_w)
        arrivals = Arrivals(
            contract=np.concatenate((before.contract, numbers["contract"])),
            ts=np.concatenate((before.start_ts, ts)),
            name=np.concatenate((before.name, offset)),
            late=np.concatenate((before.late, late)),
            prior_w=np.concatenate((none, prior_w)),
            ticks=np.concatenate((none, batch.ticks_before[places])),
            carried=before.name.size,
        )
        found = group(arrivals, self._window_ms)
        cluster = found.of_rows(found.name)[arrivals.carried :]
        if found.late.any():
            flags |= found.of_rows(found.late * np.int64(prints.LATE_CLUSTER))[arrivals.carried :]
        first = found.order[found.starts]
        ends = np.maximum.reduceat(np.concatenate((before.end_ts, ts))[found.order], found.starts)
        sums = before.sums.then(Sums.of_prints(flags, numbers["size"], numbers["micro"])).by_cluster(found.order, found.starts)
        clusters = Open(found.name, arrivals.contract[first], arrivals.ts[first], ends, found.late, sums)
        closed = self._closed(batch, clusters, found.superseded)
        if not places.size:
            return memory.tail, clusters.take(closed), clusters.take(~closed)
        numbers |= {"flags": flags, "offset": offset, "cluster": cluster, "venue": venue}
        rows = memory.tail.then([numbers[name] for name in tail.NUMBERS], batch.frame.select("trace_id")[places])
        return rows, clusters.take(closed), clusters.take(~closed)

    def _closed(self, batch: _Batch, clusters: Open, superseded: Flags) -> Flags:
        """Closed by a later print of the contract, or by a tick: a late cluster by the next one."""
        if not batch.tick_w.size:
            return superseded & ~clusters.late
        by_tick = batch.tick_w[-1] >= clusters.start_ts + self._window_ms
        closed: Flags = np.where(clusters.late, clusters.name < batch.tick_offset[-1], superseded | by_tick)
        return closed

    def _due(self, batch: _Batch, waiting: Going) -> Integers:
        """Return the tick of this batch that decides each cluster; their number for those that wait on."""
        due = np.searchsorted(batch.tick_w, waiting.end_ts + 2 * self._window_ms)
        if not waiting.late.any():
            return due
        return np.where(waiting.late, np.searchsorted(batch.tick_offset, waiting.name), due)

    def _packets(self, batch: _Batch, rows: Tail, going: Going, ticks: Integers) -> tuple[dict[str, pl.DataFrame], list[tuple[int, bytes]]]:
        """Return the packets of decided clusters, and what cancels need of them by the tick that decided."""
        if not going.name.size:
            return {}, []
        decided = Decided(going.name, going.late, going.mask, going.parent, batch.partition, batch.tick_offset[ticks])
        members = Members.of(rows, going.name)
        parts = [(int(batch.tick_w[tick]), row) for tick, row in kept.kept_rows(members, decided, ticks)]
        return {topics.FLOW_PACKETS: packet_frame(members, decided, self._rules)}, parts

    def _signal_prints(self, batch: _Batch) -> pl.DataFrame:
        places = np.flatnonzero(batch.flags & prints.PASS)
        chosen = batch.frame[_PRINT_COLUMNS]
        chosen = chosen[places] if 2 * places.size < chosen.height else chosen.filter(pl.Series((batch.flags & prints.PASS) != 0))
        origin = pl.Series("origin_offset", batch.offset[places])
        partition = pl.Series("origin_partition", np.full(places.size, batch.partition))
        constants = _signal_constants(self.rules, self.config, max(places.size, _LEAST_CONSTANTS).bit_length())
        return chosen.hstack([origin, partition]).hstack(constants[: places.size])[_SIGNAL_SCHEMA.names()]

    def _kept(self, head: Head, rows: list[tuple[int, bytes]]) -> tuple[Head, dict[bytes, bytes], list[bytes]]:
        """Write rows for cancels under their minutes, and delete minutes that are over."""
        before, minutes = dict(head.kept), dict(head.kept)
        changed: dict[bytes, bytes] = {}
        for w, row in rows:
            minute = kept.minute_of(w)
            number = minutes.get(minute, 0)
            changed[kept.row_key(minute, number)] = row
            minutes[minute] = number + 1
        over = [minute for minute in minutes if kept.is_over(minute, head.last_w, self._rules.cancel_window_ms)]
        for minute in over:
            for number in range(before.get(minute, 0), minutes[minute]):
                del changed[kept.row_key(minute, number)]
        deleted = [kept.row_key(minute, number) for minute in over for number in range(before.get(minute, 0))]
        remaining = sorted((minute, count) for minute, count in minutes.items() if minute not in over)
        return msgspec.structs.replace(head, kept=remaining), changed, deleted


def _take(frame: pl.DataFrame, head: Head) -> _Batch:
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
    return _Batch(frame, partition, offset, flags, tick_w[1:], tick_offset, ticks_before, tick_w[ticks_before], after)


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


def _counts(batch: _Batch, closed: Open) -> dict[str, int]:
    def count(bit: int) -> int:
        return int(np.count_nonzero(batch.flags & bit))

    late = int(np.count_nonzero(closed.late))
    return {
        "prints": batch.flags.size - batch.tick_w.size,
        "cancels": count(prints.CANCEL),
        "excluded": count(prints.EXCLUDED),
        "late": count(prints.LATE),
        "clusters": closed.late.size - late,
        "late_clusters": late,
    }


def _decision_order(rows: Tail, waiting: Going, due: Integers, ready: Integers) -> Integers:
    """Sort by tick, late clusters after the tick's others, then by end and contract."""
    if ready.size < 2:
        return ready
    ready = ready[np.lexsort((waiting.end_ts[ready], waiting.late[ready], due[ready]))]
    begins = np.zeros(ready.size, np.bool_)
    for key in (due, waiting.late, waiting.end_ts):
        begins[starts_of(key[ready])] = True
    if begins.all():
        return ready
    ids = CONTRACTS.texts(rows.numbers[tail.ATTRIBUTE, rows.offsets.searchsorted(waiting.name[ready])])["option_contract_id"]
    keys = pl.DataFrame({"tie": np.cumsum(begins), "contract": ids})
    order: Integers = ready[keys.select(_BY_CONTRACT).to_series().to_numpy()]
    return order


def _left_chunks(before: Tail, after: Tail) -> list[bytes]:
    """Return the keys of stored chunks that the tail has left."""
    if not len(before):
        return []
    blocks = np.unique(before.offsets // tail.BLOCK_OFFSETS) if not len(after) else None
    if blocks is None:
        first = tail.block_of(after.bounds[0])
        blocks = np.unique(before.offsets[: before.place(first * tail.BLOCK_OFFSETS)] // tail.BLOCK_OFFSETS)
    return [tail.block_key(block) for block in blocks.tolist()]


def _changed_chunks(before: Tail, rows: Tail, after: Tail) -> dict[bytes, bytes]:
    """Return the chunks that prints came into, and the first one when it was cut."""
    if not len(after):
        return {}
    changed: dict[bytes, bytes] = {}
    first, last = (tail.block_of(offset) for offset in after.bounds)
    grown = last + 1
    if len(rows) > len(before):
        grown = max(tail.block_of(int(rows.offsets[len(before)])), first)
        changed |= after.chunks(grown, last)
    if grown > first and len(before) and before.bounds[0] != after.bounds[0]:
        changed |= after.chunks(first, first)
    return changed


@lru_cache(maxsize=16)
def _signal_constants(rules: str, config: str, size: int) -> pl.DataFrame:
    """Columns that are the same in every signal print, 2^size rows of them."""
    made = (*_PRINT_COLUMNS, "origin_offset", "origin_partition")
    values = {"rules": rules, "config": config}
    columns = [pl.Series(name, [values.get(name)], kind) for name, kind in _SIGNAL_SCHEMA.items() if name not in made]
    return pl.DataFrame([column.new_from_index(0, 1 << size) for column in columns])
