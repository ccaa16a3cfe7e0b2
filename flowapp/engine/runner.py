"""Drives one agent's fold over its partitions: polls in, outputs out, checkpoints as consistent cuts.

Whoever delivers runs only queues them. Three threads do the work, a poll at a time: one decodes and judges, one folds,
one encodes and sends. A checkpoint is cut between two polls on the folding thread and follows the outputs of what was
folded before it down the line, so that they are delivered when it is written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from operator import methodcaller
from typing import Protocol, TypeVar

import polars as pl

from flowapp.core.fold import OFFSET, PARTITION, Fold, apply_poll, split_valid
from flowapp.engine.ending import end_process
from flowapp.engine.line import Belt, Line, Mode
from flowapp.engine.metrics import Metrics
from flowapp.engine.partition import Cut, Partition, Step, no_step
from flowapp.engine.poll import Poll, Run
from flowapp.engine.producer import Producer
from flowapp.engine.sink import DECODE_STAGE, DeadLetter, Encoder, Outbox, Sink
from flowapp.errors import RegistryUnavailable
from flowapp.records.codec import ROW, Decoded

QUEUE_MAX_RECORDS = 20_000
POLL_MAX_RECORDS = 20_000
GATHER_RECORDS, GATHER_SECONDS = 2_000, 0.01
REGISTRY_RETRY_SECONDS = 0.5
REGISTRY_LOG_SECONDS = 5.0

T = TypeVar("T")
log = logging.getLogger("flowapp.engine.runner")


class Codec(Encoder, Protocol):
    """The codec as far as a runner needs it."""

    def decode(self, topic: str, values: Sequence[bytes | None]) -> Decoded:
        """Decode the values of a topic."""


@dataclass(frozen=True)
class Hooks:
    """What a runner tells the outside: offsets that are checkpointed, room in its queue, configurations that begin to hold."""

    acked: Callable[[int, int], None]
    room: Callable[[], None]
    configured: Callable[[Sequence[Partition]], None]


class Abandoned(Exception):
    """A poll was given up because its partitions are being let go."""


@dataclass
class Job:
    """A poll on its way, and what it has brought about so far; or the cuts of a checkpoint."""

    poll: Poll
    judged: pl.DataFrame
    outbox: Outbox


@dataclass
class Cuts:
    """A checkpoint on its way."""

    cuts: list[tuple[Partition, Cut]]


class Runner:
    """One agent in this process."""

    def __init__(
        self,
        fold: Fold,
        codec: Codec,
        producer: Producer,
        partition: Callable[[int], Partition],
        hooks: Hooks,
        *,
        namespace: str,
        worker: str,
        checkpoint_ms: int,
        metrics: Metrics,
        on_step: Step = no_step,
    ) -> None:
        self.fold = fold
        self._codec = codec
        self._producer = producer
        self._new_partition = partition
        self._hooks = hooks
        self._worker = worker.encode()
        self._checkpoint_seconds = checkpoint_ms / 1000
        self._metrics = metrics
        self._on_step = on_step
        self._sink = Sink(namespace, fold.name, fold.input_topic, codec, producer, metrics)
        self._pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix=f"{fold.name}-partition")
        self._line = Line()
        self._judged: Belt[Job] = Belt(self._line)
        self._folded: Belt[Job | Cuts] = Belt(self._line)
        self._lifecycle = threading.Lock()
        self._queue: deque[Run] = deque()
        self._queued_records = 0
        self._partitions: dict[int, Partition] = {}
        self._read_offsets: dict[int, int] = {}
        self._generation = -1
        self._abandoned = self._finished = self._cutting = False
        self._inflight: list[Future[None]] = []
        self._next_checkpoint = 0.0
        stages = {"decode": self._decode_next, "fold": self._fold_next, "send": self._send_next}
        self._threads = [
            threading.Thread(target=self._work, args=(stage,), name=f"{fold.name}-{name}", daemon=True) for name, stage in stages.items()
        ]

    # From the event loop

    def offer(self, run: Run) -> bool:
        """Queue a run; return whether there is room for more. Runs of an older assignment are dropped, they are read again."""
        with self._line.wake:
            if self._line.is_open and run.generation == self._generation:
                self._queue.append(run)
                self._queued_records += len(run.records)
                self._line.wake.notify_all()
            return self._queued_records < QUEUE_MAX_RECORDS

    def next_offsets(self) -> Mapping[int, int]:
        """Return, by partition, the offset to read from."""
        return {number: partition.offset + 1 for number, partition in self._partitions.items()}

    # Blocking, from a thread of their own

    def assign(self, partitions: Iterable[int], generation: int) -> None:
        """Take partitions over: fence, restore, check, mark as not clean; then begin to take runs.

        Raises:
            StateError: state, log and rules do not belong together.
        """
        with self._lifecycle:
            if not self._finished:
                self._let_go()
                self._take_over(partitions, generation)

    def _take_over(self, partitions: Iterable[int], generation: int) -> None:
        begun = time.perf_counter()
        opened = {number: self._new_partition(number) for number in sorted(partitions)}
        same = list(self._pool.map(methodcaller("open"), opened.values()))
        self._hooks.configured([partition for partition, known in zip(opened.values(), same, strict=True) if not known])
        list(self._pool.map(methodcaller("begin"), opened.values()))
        rows = sum(partition.restored_rows for partition in opened.values())
        self._metrics.assignments.labels(self.fold.name).inc()
        self._metrics.restored_rows.labels(self.fold.name).inc(rows)
        took = time.perf_counter() - begun
        context = {"agent": self.fold.name, "partitions": list(opened), "rows": rows}
        log.info("agent %s owns partitions %s, %d rows restored in %.1f s", *context.values(), took, extra={"context": context})
        self._partitions, self._generation, self._abandoned = opened, generation, False
        self._read_offsets = {number: partition.offset for number, partition in opened.items()}
        self._next_checkpoint = time.monotonic() + self._checkpoint_seconds
        self._line.switch(Mode.OPEN)
        for thread in self._threads:
            if not thread.is_alive():
                thread.start()

    def revoke(self) -> None:
        """Let all partitions go: wait for a checkpoint in flight, then drop what is cached and write nothing."""
        with self._lifecycle:
            self._let_go()

    def _let_go(self) -> None:
        self._quiesce(Mode.CLOSED)
        self._drop()

    def finish(self) -> None:
        """Stop cleanly: apply no more, checkpoint what was applied and say so in the position rows."""
        with self._lifecycle:
            self._finished = True
            self._quiesce(Mode.DRAINING)
            if self._abandoned:
                log.warning("agent %s stops in the middle of a batch, which is redone at the next start", self.fold.name)
            elif self._partitions:
                self._checkpoint([(partition, partition.cut(clean=True)) for partition in self._partitions.values()])
                wait(self._inflight)
            self._drop()
            self._producer.close()

    def _quiesce(self, mode: Mode) -> None:
        self._line.switch(mode)
        with self._line.wake:
            self._queue.clear()
            self._queued_records = 0
        wait(self._inflight)
        self._hooks.room()

    def _drop(self) -> None:
        list(self._pool.map(methodcaller("close"), self._partitions.values()))
        self._partitions = {}

    # On the runner's threads

    def _work(self, stage: Callable[[], None]) -> None:
        try:
            while True:
                stage()
        except BaseException as error:
            end_process(error)

    def _decode_next(self) -> None:
        runs = self._take()
        if not runs:
            return
        poll = Poll.of(runs, self._read_offsets)
        self._read_offsets.update(poll.last)
        outbox = Outbox()
        try:
            self._judged.put(Job(poll, self._judge(poll, outbox), outbox))
        except Abandoned:
            self._line.done()

    def _take(self) -> list[Run]:
        """Wait for runs and begin a job with as many as one poll holds."""
        wake = self._line.wake
        with wake:
            wake.wait_for(lambda: self._line.is_open and bool(self._queue))
            # A poll's cost hardly depends on its size when small: partitions fetched moments apart go together.
            wake.wait_for(lambda: not self._line.is_open or self._queued_records >= GATHER_RECORDS, GATHER_SECONDS)
            if not (self._line.is_open and self._queue):
                return []
            self._line.begin()
            runs: list[Run] = []
            taken = 0
            while self._queue and (not runs or taken + len(self._queue[0].records) <= POLL_MAX_RECORDS):
                runs.append(self._queue.popleft())
                taken += len(runs[-1].records)
            self._queued_records -= taken
        self._hooks.room()
        return runs

    def _judge(self, poll: Poll, outbox: Outbox) -> pl.DataFrame:
        agent = self.fold.name
        with self._metrics.stage(agent, "decode"):
            decoded = self._patiently(lambda: self._codec.decode(self.fold.input_topic, poll.values))
        rejects = [reject for reject in decoded.rejects if self._emits(poll, reject.row)]
        outbox.dead += [DeadLetter(item.row, DECODE_STAGE, item.reason, item.error, item.schema_id) for item in rejects]
        with self._metrics.stage(agent, "judge"):
            judged = self.fold.judge(poll.frame(decoded.frame, ROW))
        valid, refused = split_valid(judged)
        outbox.refuse(poll, [item for item in refused if item.offset >= self._partitions[item.partition].emit_from])
        return valid

    def _emits(self, poll: Poll, row: int) -> bool:
        return bool(poll.offsets[row] >= self._partitions[int(poll.partitions[row])].emit_from)

    def _fold_next(self) -> None:
        job = self._judged.get(until=self._next_checkpoint if self._line.is_open else None)
        if job is not None:
            if self._line.is_open:
                self._fold(job)
                self._folded.put(job)
            else:
                self._line.done()
        if time.monotonic() >= self._next_checkpoint:
            self._cut()

    def _fold(self, job: Job) -> None:
        states = {number: partition.state for number, partition in self._partitions.items()}
        with self._metrics.stage(self.fold.name, "fold"):
            for rows, emits in self._by_emission(job.judged):
                for number, results, refused in apply_poll(self.fold, rows, states, lambda number, result: states[number].merge(result)):
                    if emits:
                        job.outbox.add(number, results)
                        job.outbox.refuse(job.poll, refused)
        for number, offset in job.poll.last.items():
            self._partitions[number].offset = offset

    def _by_emission(self, judged: pl.DataFrame) -> list[tuple[pl.DataFrame, bool]]:
        """Return the rows, those first that are folded without sending anything."""
        emit_from = {number: partition.emit_from for number, partition in self._partitions.items()}
        if all(partition.offset + 1 >= emit_from[number] for number, partition in self._partitions.items()):
            return [(judged, True)]
        silent = judged[OFFSET] < judged[PARTITION].replace_strict(emit_from, return_dtype=pl.Int64)
        return [(judged.filter(silent), False), (judged.filter(~silent), True)]

    def _cut(self) -> None:
        """Begin a checkpoint of all partitions that moved, unless one is still on its way."""
        self._next_checkpoint = time.monotonic() + self._checkpoint_seconds
        if self._cutting or not all(future.done() for future in self._inflight):
            self._next_checkpoint = time.monotonic() + self._checkpoint_seconds / 10
        elif self._line.begin():
            moved = [partition for partition in self._partitions.values() if partition.moved]
            self._cutting = True
            self._folded.put(Cuts([(partition, partition.cut(clean=False)) for partition in moved]))

    def _send_next(self) -> None:
        job = self._folded.get()
        if isinstance(job, Cuts):
            # Behind a batch whose outputs were given up, no position may be written.
            if self._line.mode is not Mode.CLOSED and not self._abandoned and job.cuts:
                self._checkpoint(job.cuts)
            self._cutting = False
        elif job is not None and self._line.mode is not Mode.CLOSED:
            try:
                self._sink.send(job.outbox, job.poll, self._patiently, self._run_facts())
                self._count(job.poll)
            except Abandoned:
                self._abandoned = True
        self._line.done()

    def _checkpoint(self, cuts: Sequence[tuple[Partition, Cut]]) -> None:
        """Wait until all outputs are delivered, then write the cuts, a thread a partition."""
        for partition, _ in cuts:
            self._on_step("before_outputs", partition.place)
        with self._metrics.stage(self.fold.name, "deliver"):
            self._producer.flush()
        self._inflight = [self._pool.submit(self._land, partition, cut) for partition, cut in cuts]

    def _land(self, partition: Partition, cut: Cut) -> None:
        """Commit a cut on a thread of the pool; when that fails or its outcome is unknown, the process ends here."""
        agent = self.fold.name
        try:
            with self._metrics.stage(agent, "checkpoint"):
                partition.commit(cut)
        except BaseException as error:
            end_process(f"checkpoint of {partition.place} up to offset {cut.position.offset} failed: {error}")
        self._metrics.checkpoints.labels(agent).inc()
        self._metrics.checkpoint_rows.labels(agent).inc(len(cut.rows) + 1)
        self._metrics.checkpoint_bytes.labels(agent).inc(sum(len(key) + len(row or b"") for key, row in cut.rows.items()))
        self._hooks.acked(partition.place.partition, cut.position.offset)

    def _patiently(self, call: Callable[[], T]) -> T:
        """Repeat a call while the registry is down: nothing is guessed, and nothing is skipped."""
        logged = 0.0
        while True:
            try:
                return call()
            except RegistryUnavailable as error:
                if time.monotonic() - logged > REGISTRY_LOG_SECONDS:
                    log.warning("agent %s waits for the schema registry: %s", self.fold.name, error)
                    logged = time.monotonic()
            with self._line.wake:
                if self._line.wake.wait_for(lambda: not self._line.is_open, REGISTRY_RETRY_SECONDS):
                    raise Abandoned

    def _run_facts(self) -> list[tuple[str, bytes]]:
        return [("worker", b"%s@%d" % (self._worker, time.time_ns() // 1_000_000))]

    def _count(self, poll: Poll) -> None:
        agent, metrics = self.fold.name, self._metrics
        metrics.batches.labels(agent).inc()
        metrics.records.labels(agent).inc(len(poll.records))
        metrics.record_bytes.labels(agent).inc(sum(len(value) for value in poll.values if value))
        metrics.queued.set(self._producer.depth())
        for number, offset in poll.last.items():
            metrics.offset.labels(agent, number).set(offset)
            if number in poll.log_ends:
                metrics.lag.labels(agent, number).set(max(0, poll.log_ends[number] - offset - 1))
