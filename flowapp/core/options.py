"""The options agent: prints to clusters, clusters to packets (architecture section 6, "The options fold")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp import topics
from flowapp.core import kept, prints, tail
from flowapp.core.clusters import Arrivals, Grouping, group
from flowapp.core.fold import ERROR, OFFSET, PARTITION, TICK, Result, State
from flowapp.core.memory import HEAD, Going, Head, Memory, Open, Sums, judge_clusters, load, with_counts
from flowapp.core.packets import Decided, Members, packet_frame
from flowapp.core.prints import CONTRACT, CONTRACTS, FLAGS, MICRO, stamp
from flowapp.core.rules import OptionRules, RuleSet
from flowapp.core.tail import NO_INTEGER, Tail
from flowapp.records.schemas import frame_schema
from flowapp.settings import Settings

__all__ = ["OptionsFold", "stamp"]

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_PRINT_COLUMNS = tuple(frame_schema("OptionPrint"))
_SIGNAL_SCHEMA = frame_schema("SignalPrint")


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
    runs: list[tuple[str, int]]
    ignored: int


class OptionsFold:
    """The fold over `options.prints`."""

    name = "options"
    input_topic = topics.OPTIONS_PRINTS
    version = 1

    def __init__(self, settings: Settings, rules: RuleSet | None = None) -> None:
        self._rules = OptionRules.of(settings, rules)
        self.rules = self._rules.rules.name
        self.config = self._rules.config

    def judge(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Stamp prints that another configuration stamped, find what is invalid, and prepare the numbers `apply` works on."""
        stamped = frame.select(((pl.col("config") == self.config).fill_null(False) | pl.col(TICK).is_not_null()).all()).item()
        judged = frame if stamped else stamp(frame, self._rules)
        numbers = CONTRACTS.numbers(judged["option_contract_id"])
        parses = CONTRACTS.parse(judged["option_contract_id"], numbers)
        errors = prints.errors(judged, parses)
        return prints.prepare(judged, self._rules).with_columns(pl.Series(CONTRACT, numbers), errors.alias(ERROR))

    def apply(self, frame: pl.DataFrame, state: State) -> Result:
        """Fold valid rows of one partition, in log order."""
        memory = state.memory if isinstance(state.memory, Memory) else load(state, self._rules)
        batch = _take(frame, memory.head)
        new, closed, still_open = self._cluster(batch, memory.open)
        rows = memory.tail.then(new)
        closed_going = judge_clusters(self._rules, closed)
        waiting = memory.held.then(closed_going)
        due = self._due(batch, waiting)
        ready = due < batch.tick_w.size
        order = _decision_order(rows, waiting, due, np.flatnonzero(ready))
        decided = waiting.take(order)
        signal = self._signal_prints(batch)
        counts = {
            "prints": batch.offset.size - batch.tick_w.size,
            "ignored": batch.ignored,
            "cancels": _count(batch.flags, prints.CANCEL),
            "excluded": _count(batch.flags, prints.EXCLUDED),
            "late": _count(batch.flags, prints.LATE),
            "clusters": int((~closed.late).sum()),
            "late_clusters": int(closed.late.sum()),
            "passed": closed_going.name.size,
            "packets": decided.name.size,
            "signal_prints": signal.height,
        }
        last_w = int(batch.tick_w[-1]) if batch.tick_w.size else memory.head.last_w
        candidates = memory.candidates.then(decided.take(~decided.late))
        candidates = candidates.take(candidates.end_ts + 3 * self._rules.window_ms > last_w)
        held = waiting.take(~ready)
        outputs, kept_rows = self._packets(batch, rows, decided, due[order])
        head, changed, deleted = self._kept(memory.head, last_w, kept_rows)
        head = Head(
            last_w,
            int(batch.tick_offset[-1]) if batch.tick_w.size else head.last_tick_offset,
            batch.runs,
            head.kept,
            with_counts(head, counts),
        )
        needed = np.concatenate((still_open.name, held.name, candidates.name))
        remembered = rows.since(int(needed.min()) if needed.size else None)
        tail_changed, tail_deleted = _tail_rows(memory.tail, remembered, new)
        changed |= tail_changed
        changed[HEAD] = msgspec.msgpack.encode(head)
        state.memory = Memory(head, remembered, still_open, held, candidates)
        return Result({topics.OPTIONS_SIGNAL: signal, **outputs}, changed, [*deleted, *tail_deleted])

    def _cluster(self, batch: _Batch, before: Open) -> tuple[Tail, Open, Open]:
        """Put new prints into clusters; return their rows, the clusters that closed, and those still open."""
        places = np.flatnonzero(batch.flags & prints.INPUT)
        if not places.size and not before.name.size:
            return Tail.empty(), before, before
        new = _rows(batch, places)
        flags, ts, offset = new.numbers[tail.FLAGS], new.numbers[tail.SOURCE_TS], new.numbers[tail.OFFSET]
        carried = before.name.size
        prior_w = batch.prior_w[places]
        contract = batch.frame[CONTRACT].to_numpy()[places]
        arrivals = Arrivals(
            contract=np.concatenate((before.contract, contract)),
            ts=np.concatenate((before.start_ts, ts)),
            name=np.concatenate((before.name, offset)),
            late=np.concatenate((before.late, ((flags & prints.LATE) != 0) | (ts <= prior_w))),
            prior_w=np.concatenate((np.zeros(carried, np.int64), prior_w)),
            ticks=np.concatenate((np.zeros(carried, np.int64), batch.ticks_before[places])),
            carried=carried,
        )
        found = group(arrivals, self._rules.window_ms)
        new.numbers[tail.CLUSTER] = found.of_rows(found.name)[carried:]
        new.numbers[tail.FLAGS] |= np.where(found.of_rows(found.late)[carried:], prints.LATE_CLUSTER, 0)
        sums = before.sums.then(Sums.of_prints(flags, new.numbers[tail.SIZE], new.numbers[tail.MICRO]))
        first = found.order[found.starts]
        ends = np.maximum.reduceat(np.concatenate((before.end_ts, ts))[found.order], found.starts)
        clusters = Open(
            found.name, arrivals.contract[first], arrivals.ts[first], ends, found.late, sums.by_cluster(found.order, found.starts)
        )
        closed = self._closed(batch, clusters, found)
        return new, clusters.take(closed), clusters.take(~closed)

    def _closed(self, batch: _Batch, clusters: Open, found: Grouping) -> Flags:
        """Closed by a later print of the contract, or by a tick: a late cluster by the next one."""
        if not batch.tick_w.size:
            return found.superseded & ~found.late
        by_tick = batch.tick_w[-1] >= clusters.start_ts + self._rules.window_ms
        return np.where(found.late, clusters.name < batch.tick_offset[-1], found.superseded | by_tick)

    def _due(self, batch: _Batch, waiting: Going) -> Integers:
        """Return the tick of this batch that decides each cluster; their number for those that wait on."""
        due = np.searchsorted(batch.tick_w, waiting.end_ts + 2 * self._rules.window_ms)
        next_tick = np.searchsorted(batch.tick_offset, waiting.name)
        return np.where(waiting.late, next_tick, due)

    def _signal_prints(self, batch: _Batch) -> pl.DataFrame:
        passed = (batch.flags & prints.PASS) != 0
        chosen = batch.frame.select(*_PRINT_COLUMNS, OFFSET).filter(pl.Series(passed))
        constants = {"origin_partition": batch.partition, "rules": self.rules, "config": self.config}
        columns = [
            pl.col(OFFSET).alias(name)
            if name == "origin_offset"
            else pl.lit(constants[name], kind).alias(name)
            if name in constants
            else pl.col(name)
            if name in _PRINT_COLUMNS
            else pl.lit(None, kind).alias(name)
            for name, kind in _SIGNAL_SCHEMA.items()
        ]
        return chosen.select(columns)

    def _packets(self, batch: _Batch, rows: Tail, going: Going, ticks: Integers) -> tuple[dict[str, pl.DataFrame], list[tuple[int, bytes]]]:
        if not going.name.size:
            return {}, []
        partition = np.full(going.name.size, batch.partition, np.int64)
        decided = Decided(going.name, going.late, going.mask, going.parent, partition, batch.tick_offset[ticks])
        members = Members.of(rows, going.name)
        parts = [(int(batch.tick_w[tick]), row) for tick, row in kept.kept_rows(members, decided, ticks)]
        return {topics.FLOW_PACKETS: packet_frame(members, decided, self._rules)}, parts

    def _kept(self, head: Head, last_w: int, rows: list[tuple[int, bytes]]) -> tuple[Head, dict[bytes, bytes], list[bytes]]:
        """Write rows for cancels under their minutes, and delete minutes that are over."""
        written = dict(head.kept)
        minutes = dict(written)
        changed: dict[bytes, bytes] = {}
        for w, row in rows:
            bucket = kept.bucket_of(w)
            if kept.is_over(bucket, last_w, self._rules.cancel_window_ms):
                continue
            changed[kept.row_key(bucket, minutes.get(bucket, 0))] = row
            minutes[bucket] = minutes.get(bucket, 0) + 1
        over = [bucket for bucket in minutes if kept.is_over(bucket, last_w, self._rules.cancel_window_ms)]
        deleted = [kept.row_key(bucket, number) for bucket in over for number in range(written.get(bucket, 0))]
        remaining = sorted((bucket, rows_) for bucket, rows_ in minutes.items() if bucket not in over)
        return Head(head.last_w, head.last_tick_offset, head.runs, remaining, head.counts), changed, deleted


def _take(frame: pl.DataFrame, head: Head) -> _Batch:
    """Ignore rows whose seq does not rise within their run, and find the ticks."""
    rises, runs = _rising(frame, dict(head.runs))
    ignored = 0
    if rises is not None:
        ignored = int((~rises).sum())
        frame = frame.filter(pl.Series(rises))
    offset = frame[OFFSET].to_numpy()
    is_tick = frame[TICK].is_not_null().to_numpy()
    tick_places = np.flatnonzero(is_tick)
    tick_w = np.maximum.accumulate(np.append(head.last_w, frame[TICK].gather(tick_places).to_numpy()))
    ticks_before = np.cumsum(is_tick) - is_tick
    return _Batch(
        frame=frame,
        partition=int(frame[PARTITION].item(0)) if frame.height else -1,
        offset=offset,
        flags=frame[FLAGS].to_numpy(),
        tick_w=tick_w[1:],
        tick_offset=offset[tick_places],
        ticks_before=ticks_before,
        prior_w=tick_w[ticks_before],
        runs=sorted(runs.items()),
        ignored=ignored,
    )


def _rising(frame: pl.DataFrame, runs: dict[str, int]) -> tuple[Flags | None, dict[str, int]]:
    """Tell which rows' seq rises within their run (None: all), and return the runs' last seq."""
    seq, run = frame["seq"].to_numpy(), frame["run"]
    if not frame.height:
        return None, runs
    first_run = run.item(0)
    if (run == first_run).all():
        last = runs.get(first_run, NO_INTEGER)
        if seq[0] > last and bool((seq[1:] > seq[:-1]).all()):
            return None, runs | {first_run: int(seq[-1])}
    rises = np.ones(frame.height, np.bool_)
    for name in run.unique(maintain_order=True).to_list():
        mine = np.flatnonzero((run == name).to_numpy())
        highest = np.maximum.accumulate(np.append(runs.get(name, NO_INTEGER), seq[mine]))
        rises[mine] = seq[mine] > highest[:-1]
        runs = runs | {name: int(highest[-1])}
    return None if rises.all() else rises, runs


def _rows(batch: _Batch, places: Integers) -> Tail:
    """Return the tail rows of prints; their cluster is not known yet."""
    names = [tail.NUMBERS[field] for field in tail.COPIED]
    chosen = batch.frame.select(*names, *tail.TEXTS, MICRO)[places]
    numbers = np.empty((len(tail.NUMBERS), places.size), np.int64)
    numbers[tail.OFFSET], numbers[tail.FLAGS] = batch.offset[places], batch.flags[places]
    numbers[tail.MICRO] = chosen[MICRO].to_numpy()
    for field, name in zip(tail.COPIED, names, strict=True):
        if field < tail.FIRST_REAL:
            numbers[field] = chosen[name].fill_null(NO_INTEGER).to_numpy()
        else:
            numbers[field].view(np.float64)[:] = chosen[name].to_numpy()
    return Tail(numbers, chosen.select(tail.TEXTS))


def _decision_order(rows: Tail, waiting: Going, due: Integers, ready: Integers) -> Integers:
    """Sort by tick, late clusters after the tick's others, then by end and contract."""
    if ready.size < 2:
        return ready
    keys = pl.DataFrame(
        {
            "due": due[ready],
            "late": waiting.late[ready],
            "end": waiting.end_ts[ready],
            "contract": rows.texts["option_contract_id"].gather(rows.positions(waiting.name[ready])),
        }
    )
    return ready[keys.select(pl.arg_sort_by("due", "late", "end", "contract")).to_series().to_numpy()]


def _tail_rows(before: Tail, after: Tail, new: Tail) -> tuple[Mapping[bytes, bytes], list[bytes]]:
    """Return the chunks that changed and the keys of those that the tail has left."""
    old_blocks, blocks = before.blocks(), after.blocks()
    deleted: list[bytes] = []
    if old_blocks is not None:
        upto = old_blocks[1] + 1 if blocks is None else min(blocks[0], old_blocks[1] + 1)
        held = np.unique(before.offsets // tail.BLOCK_OFFSETS)
        deleted = [tail.block_key(block) for block in held.tolist() if block < upto]
    if blocks is None:
        return {}, deleted
    changed: dict[bytes, bytes] = {}
    if len(new):
        changed |= after.chunks(max(int(new.offsets[0]) // tail.BLOCK_OFFSETS, blocks[0]))
    cut = old_blocks is not None and before.offsets[0] != after.offsets[0]
    key = tail.block_key(blocks[0])
    if cut and key not in changed and after.offsets[0] <= before.offsets[-1]:
        changed[key] = after.first_chunk()
    return changed, deleted


def _count(flags: Integers, bit: int) -> int:
    return int(np.count_nonzero(flags & bit))
