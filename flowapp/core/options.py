"""The options agent: prints to clusters, clusters to packets (architecture section 6, "The options fold").

What one partition remembers is folded partition by partition; verdicts, packets and signal prints, which are columns
over clusters and prints whoever owns them, are made once for all partitions of a poll.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp import topics
from flowapp.core import kept, prints, tail
from flowapp.core.batch import Batch, take
from flowapp.core.clusters import Arrivals, group, starts_of
from flowapp.core.fold import ERROR, Result, State, split_by_partition
from flowapp.core.memory import HEAD, Going, Memory, Open, Sums, Venues, judge_clusters, load, with_counts
from flowapp.core.numbering import CONTRACTS
from flowapp.core.packets import Decided, Members, packet_frame
from flowapp.core.prints import is_stamped, stamp
from flowapp.core.rules import OptionRules, RuleSet
from flowapp.core.signal_prints import signal_frame
from flowapp.core.tail import Tail
from flowapp.settings import Settings

__all__ = ["OptionsFold", "stamp"]

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_COPIED = tuple(name for name in tail.NUMBERS if name not in ("flags", "offset", "cluster", "venue"))
_TICKS = 2**32
"""More ticks than one batch holds."""
_BY_CONTRACT = pl.arg_sort_by("tie", "contract")


@dataclass(frozen=True)
class _Step:
    """A partition's part of a poll, with its new prints in clusters."""

    state: State
    memory: Memory
    batch: Batch
    venues: Venues
    rows: Tail
    closed: Open
    still_open: Open


@dataclass(frozen=True)
class _Decision:
    """A partition's clusters that wait, and which of them a tick of the batch decides, in order."""

    waiting: Going
    due: Integers
    order: Integers


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
        return self._apply(frame, [(frame, state)])[0]

    def apply_poll(self, frame: pl.DataFrame, states: Mapping[int, State]) -> dict[int, Result]:
        """Fold valid rows of several partitions at once, each as `apply` would."""
        parts = list(split_by_partition(frame))
        results = self._apply(frame, [(rows, states[partition]) for partition, rows in parts])
        return {partition: result for (partition, _), result in zip(parts, results, strict=True)}

    def _apply(self, frame: pl.DataFrame, parts: Sequence[tuple[pl.DataFrame, State]]) -> list[Result]:
        if not parts:
            return []
        steps = [self._step(rows, state) for rows, state in parts]
        decisions = self._decide(steps)
        packets, kept_rows = self._packets(steps, decisions)
        signals = signal_frame(frame, _rises(steps, [rows.height for rows, _ in parts]), self._rules)
        results, memories, packet, signal = [], [], 0, 0
        for step, decision, rows in zip(steps, decisions, kept_rows, strict=True):
            went_on = decision.waiting.name.size - step.memory.held.name.size
            counts = step.batch.counts() | {"packets": decision.order.size, "passed": went_on}
            ends = packet + counts["packets"], signal + counts["signal_prints"]
            outputs = {topics.OPTIONS_SIGNAL: signals[signal : ends[1]], topics.FLOW_PACKETS: packets[packet : ends[0]]}
            packet, signal = ends
            memory, changed, deleted = self._remember(step, decision, rows, counts)
            memories.append(memory)
            results.append(Result({topic: output for topic, output in outputs.items() if output.height}, changed, deleted))
        for step, memory in zip(steps, memories, strict=True):
            step.state.memory = memory
        return results

    def _step(self, frame: pl.DataFrame, state: State) -> _Step:
        memory = state.memory if isinstance(state.memory, Memory) else load(state, self._rules)
        batch = take(frame, memory.head)
        venues, places = memory.venues, np.flatnonzero(batch.flags & prints.INPUT)
        venue = batch.number("venue")[places]
        if not venues.knows(venue):
            venues = venues.learn(venue, batch.frame["exchange"], places)
        rows, closed, still_open = self._cluster(batch, memory, places, venues.places[venue])
        return _Step(state, memory, batch, venues, rows, closed, still_open)

    def _cluster(self, batch: Batch, memory: Memory, places: Integers, venue: Integers) -> tuple[Tail, Open, Open]:
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
        rows = memory.tail
        if places.size:
            numbers |= {"flags": flags, "offset": offset, "cluster": cluster, "venue": venue}
            ids = batch.frame[["trace_id"]]
            rows = rows.then([numbers[name] for name in tail.NUMBERS], ids if places.size == ids.height else ids[places])
        return rows, clusters.take(closed), clusters.take(~closed)

    def _closed(self, batch: Batch, clusters: Open, superseded: Flags) -> Flags:
        """Closed by a later print of the contract, or by a tick: a late cluster by the next one."""
        if not batch.tick_w.size:
            return superseded & ~clusters.late
        by_tick = batch.tick_w[-1] >= clusters.start_ts + self._window_ms
        closed: Flags = np.where(clusters.late, clusters.name < batch.tick_offset[-1], superseded | by_tick)
        return closed

    def _decide(self, steps: Sequence[_Step]) -> list[_Decision]:
        """Judge what closed, and find what a tick decides, by (end, contract), late clusters after the tick's others."""
        going = judge_clusters(self._rules, [step.closed for step in steps])
        waiting = [step.memory.held.then(fresh) for step, fresh in zip(steps, going, strict=True)]
        due = [self._due(step.batch, clusters) for step, clusters in zip(steps, waiting, strict=True)]
        ready = [np.flatnonzero(ticks < step.batch.tick_w.size) for step, ticks in zip(steps, due, strict=True)]
        columns = []
        for number, (step, clusters, ticks, places) in enumerate(zip(steps, waiting, due, ready, strict=True)):
            chosen = clusters.take(places)
            attributes = step.rows.numbers[tail.ATTRIBUTE, step.rows.offsets.searchsorted(chosen.name)]
            columns.append((np.full(places.size, number), ticks[places], chosen.late, chosen.end_ts, attributes))
        *keys, attributes = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = _decision_order(keys, attributes)
        bounds = np.concatenate(([0], np.cumsum([places.size for places in ready])))
        return [
            _Decision(clusters, ticks, places[order[bounds[number] : bounds[number + 1]] - bounds[number]])
            for number, (clusters, ticks, places) in enumerate(zip(waiting, due, ready, strict=True))
        ]

    def _due(self, batch: Batch, waiting: Going) -> Integers:
        """Return the tick of this batch that decides each cluster; their number for those that wait on."""
        due = np.searchsorted(batch.tick_w, waiting.end_ts + 2 * self._window_ms)
        if not waiting.late.any():
            return due
        return np.where(waiting.late, np.searchsorted(batch.tick_offset, waiting.name), due)

    def _packets(self, steps: Sequence[_Step], decisions: Sequence[_Decision]) -> tuple[pl.DataFrame, list[list[tuple[int, bytes]]]]:
        """Return the packets of decided clusters, and per partition what cancels need of them by the time of the tick."""
        chosen = [(step, one.waiting.take(one.order), one.due[one.order]) for step, one in zip(steps, decisions, strict=True)]
        some = [part for part in chosen if part[1].name.size]
        if not some:
            return packet_frame(None, None, self._rules), [[] for _ in steps]
        members = Members.of([(step.rows, going.name) for step, going, _ in some])
        decided = Decided.of([(going, step.batch.partition, step.batch.tick_offset[due]) for step, going, due in some])
        ticks = [due + number * _TICKS for number, (_, _, due) in enumerate(some)]
        by_step: dict[int, list[tuple[int, bytes]]] = {}
        for tick, row in kept.kept_rows(members, decided, np.concatenate(ticks)):
            number, due = divmod(tick, _TICKS)
            by_step.setdefault(id(some[number][0]), []).append((int(some[number][0].batch.tick_w[due]), row))
        return packet_frame(members, decided, self._rules), [by_step.get(id(step), []) for step in steps]

    def _remember(
        self, step: _Step, decision: _Decision, rows: list[tuple[int, bytes]], counts: dict[str, int]
    ) -> tuple[Memory, dict[bytes, bytes], list[bytes]]:
        """Return what the partition remembers from now on, and its rows that changed and that went."""
        late = int(np.count_nonzero(step.closed.late))
        counts = counts | {"clusters": step.closed.late.size - late, "late_clusters": late}
        head, changed, deleted = kept.write(step.batch.head, rows, self._rules.cancel_window_ms)
        head = with_counts(msgspec.structs.replace(head, venues=step.venues.names), counts)
        decided = decision.waiting.take(decision.order)
        candidates = step.memory.candidates.then(decided.take(~decided.late))
        candidates = candidates.take(candidates.end_ts + 3 * self._window_ms > head.last_w)
        held = decision.waiting.take(decision.due >= step.batch.tick_w.size)
        needed = np.concatenate((step.still_open.name, held.name, candidates.name))
        remembered = step.rows.since(int(needed.min()) if needed.size else None)
        deleted += tail.left_chunks(step.memory.tail, remembered)
        changed |= tail.changed_chunks(step.memory.tail, step.rows, remembered)
        changed[HEAD] = msgspec.msgpack.encode(head)
        return Memory(head, step.venues, remembered, step.still_open, held, candidates), changed, deleted


def _rises(steps: Sequence[_Step], heights: Sequence[int]) -> Flags | None:
    """Tell which rows of a poll count, None for all."""
    if all(step.batch.rises is None for step in steps):
        return None
    every = [np.ones(height, np.bool_) for height in heights]
    return np.concatenate([all_ if step.batch.rises is None else step.batch.rises for step, all_ in zip(steps, every, strict=True)])


def _decision_order(keys: Sequence[npt.NDArray[np.generic]], attributes: Integers) -> Integers:
    """Sort by the keys, then by contract id."""
    order: Integers = np.lexsort(tuple(reversed(keys)))
    begins = np.zeros(order.size, np.bool_)
    for key in keys:
        begins[starts_of(key[order])] = True
    if begins.all():
        return order
    tied = ~begins
    tied[:-1] |= ~begins[1:]
    places = np.flatnonzero(tied)
    ties = pl.DataFrame({"tie": np.cumsum(begins)[places], "contract": CONTRACTS.contract_ids(attributes[order[places]])})
    order[places] = order[places[ties.select(_BY_CONTRACT).to_series().to_numpy()]]
    return order
