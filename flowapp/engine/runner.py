"""Drives one agent's fold over its partitions: polls in, outputs out, checkpoints as consistent cuts.

All heavy work happens on one thread of the runner; whoever delivers runs only queues them.
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

from flowapp.core.fold import ERROR, OFFSET, Fold, Refused, apply_guarded, split_by_partition
from flowapp.engine.ending import end_process
from flowapp.engine.metrics import Metrics
from flowapp.engine.partition import Cut, Partition, Step, no_step
from flowapp.engine.poll import Poll, Run
from flowapp.engine.producer import Producer
from flowapp.engine.sink import DECODE_STAGE, VALIDATE_STAGE, DeadLetter, Encoder, Outbox, Sink
from flowapp.errors import RegistryUnavailable
from flowapp.records.codec import ROW, Decoded

QUEUE_MAX_RECORDS = 40_000
POLL_MAX_RECORDS = 40_000
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
        self._worker = worker
        self._checkpoint_seconds = checkpoint_ms / 1000
        self._metrics = metrics
        self._on_step = on_step
        self._sink = Sink(namespace, fold.name, fold.input_topic, codec, producer, metrics)
        self._pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix=f"{fold.name}-partition")
        self._wake = threading.Condition()
        self._queue: deque[Run] = deque()
        self._queued_records = 0
        self._partitions: dict[int, Partition] = {}
        self._generation = -1
        self._open = self._busy = self._abandoned = self._finished = False
        self._lifecycle = threading.Lock()
        self._inflight: list[Future[None]] = []
        self._next_checkpoint = 0.0
        self._thread = threading.Thread(target=self._work, name=f"{fold.name}-runner", daemon=True)

    # From the event loop

    def offer(self, run: Run) -> bool:
        """Queue a run; return whether there is room for more. Runs of an older assignment are dropped, they are read again."""
        with self._wake:
            if self._open and run.generation == self._generation:
                self._queue.append(run)
                self._queued_records += len(run.records)
                self._wake.notify_all()
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
        with self._wake:
            self._partitions, self._generation, self._open, self._abandoned = opened, generation, True, False
            self._next_checkpoint = time.monotonic() + self._checkpoint_seconds
            self._wake.notify_all()
        if not self._thread.is_alive():
            self._thread.start()

    def revoke(self) -> None:
        """Let all partitions go: wait for a checkpoint in flight, then drop what is cached and write nothing."""
        with self._lifecycle:
            self._let_go()

    def _let_go(self) -> None:
        self._quiesce()
        self._drop()

    def finish(self) -> None:
        """Stop cleanly: apply no more, checkpoint what was applied and say so in the position rows."""
        with self._lifecycle:
            self._finished = True
            self._quiesce()
            if self._abandoned:
                log.warning("agent %s stops in the middle of a batch, which is redone at the next start", self.fold.name)
            elif self._partitions:
                self._deliver()
                self._inflight = [self._submit(partition, partition.cut(clean=True)) for partition in self._partitions.values()]
                wait(self._inflight)
            self._drop()
            self._producer.close()

    def _quiesce(self) -> None:
        with self._wake:
            self._open = False
            self._queue.clear()
            self._queued_records = 0
            self._wake.notify_all()
            self._wake.wait_for(lambda: not self._busy)
        wait(self._inflight)
        self._hooks.room()

    def _drop(self) -> None:
        list(self._pool.map(methodcaller("close"), self._partitions.values()))
        self._partitions = {}

    # On the runner's thread

    def _work(self) -> None:
        try:
            while True:
                runs = self._take()
                if runs:
                    self._process(runs)
                if self._due:
                    self._checkpoint()
        except BaseException as error:
            end_process(error)

    def _take(self) -> list[Run]:
        """Wait for runs or for the next checkpoint; from here to the next call the runner counts as busy."""
        with self._wake:
            self._busy = False
            self._wake.notify_all()
            while not self._open or not (self._queue or self._due):
                self._wake.wait(max(0.0, self._next_checkpoint - time.monotonic()) if self._open else None)
            self._busy = True
            runs: list[Run] = []
            taken = 0
            while self._queue and (not runs or taken + len(self._queue[0].records) <= POLL_MAX_RECORDS):
                runs.append(self._queue.popleft())
                taken += len(runs[-1].records)
            self._queued_records -= taken
        if runs:
            self._hooks.room()
        return runs

    @property
    def _due(self) -> bool:
        return time.monotonic() >= self._next_checkpoint

    def _process(self, runs: Sequence[Run]) -> None:
        poll = Poll.of(runs, {number: partition.offset for number, partition in self._partitions.items()})
        if not poll.records:
            return
        outbox = Outbox()
        try:
            judged = self._judge(poll, outbox)
            self._fold(judged, poll, outbox)
            self._sink.send(outbox, poll, self._patiently, self._run_facts())
        except Abandoned:
            self._abandoned = True
            return
        for number, offset in poll.last.items():
            self._partitions[number].offset = offset
        self._count(poll)

    def _judge(self, poll: Poll, outbox: Outbox) -> pl.DataFrame:
        agent = self.fold.name
        with self._metrics.stage(agent, "decode"):
            decoded = self._patiently(lambda: self._codec.decode(self.fold.input_topic, poll.values))
        rejects = [reject for reject in decoded.rejects if self._emits(poll, reject.row)]
        outbox.dead += [DeadLetter(item.row, DECODE_STAGE, item.reason, item.error, item.schema_id) for item in rejects]
        with self._metrics.stage(agent, "judge"):
            judged = self.fold.judge(poll.frame(decoded.frame, ROW))
        if judged[ERROR].null_count() == judged.height:
            return judged
        bad = judged.filter(pl.col(ERROR).is_not_null()).select("_partition", OFFSET, ERROR)
        refused = [Refused(partition, offset, VALIDATE_STAGE, error) for partition, offset, error in bad.iter_rows()]
        outbox.refuse(poll, [item for item in refused if item.offset >= self._partitions[item.partition].emit_from])
        return judged.filter(pl.col(ERROR).is_null())

    def _fold(self, judged: pl.DataFrame, poll: Poll, outbox: Outbox) -> None:
        with self._metrics.stage(self.fold.name, "fold"):
            for number, rows in split_by_partition(judged):
                partition = self._partitions[number]
                silent = int((rows[OFFSET] < partition.emit_from).sum()) if rows[OFFSET][0] < partition.emit_from else 0
                if silent:
                    apply_guarded(self.fold, rows[:silent], partition.state, partition.state.merge)
                results, refused = apply_guarded(self.fold, rows[silent:], partition.state, partition.state.merge)
                outbox.add(number, results)
                outbox.refuse(poll, refused)

    def _emits(self, poll: Poll, row: int) -> bool:
        return bool(poll.offsets[row] >= self._partitions[int(poll.partitions[row])].emit_from)

    def _checkpoint(self) -> None:
        """Begin a checkpoint of all partitions that moved, unless one is still on its way."""
        self._next_checkpoint = time.monotonic() + self._checkpoint_seconds
        moved = [partition for partition in self._partitions.values() if partition.moved]
        if not moved:
            return
        if not all(future.done() for future in self._inflight):
            self._next_checkpoint = time.monotonic() + self._checkpoint_seconds / 10
            return
        self._deliver()
        self._inflight = [self._submit(partition, partition.cut(clean=False)) for partition in moved]

    def _deliver(self) -> None:
        for partition in self._partitions.values():
            self._on_step("before_outputs", partition.place)
        with self._metrics.stage(self.fold.name, "deliver"):
            self._producer.flush()

    def _submit(self, partition: Partition, cut: Cut) -> Future[None]:
        return self._pool.submit(self._land, partition, cut)

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
            with self._wake:
                if self._wake.wait_for(lambda: not self._open, REGISTRY_RETRY_SECONDS):
                    raise Abandoned

    def _run_facts(self) -> list[tuple[str, bytes]]:
        return [("worker", b"%s@%d" % (self._worker.encode(), time.time_ns() // 1_000_000))]

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
