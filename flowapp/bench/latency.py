"""From the deciding tick's produce time to a consumer's receipt of the packet."""

from __future__ import annotations

import bisect
import multiprocessing
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from flowapp import topics
from flowapp.bench import tape
from flowapp.bench.measure import Figure
from flowapp.bench.rig import Rig, wait_until_assigned, worker
from flowapp.engine.producer import KafkaProducer
from flowapp.errors import StackError
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry
from flowapp.runs import Pins
from flowapp.settings import Settings

PRINTS_PER_SECOND = 5_000.0
SECONDS = 20
WARM_UP_SECONDS = 5.0
DRAIN_SECONDS = 2.0
READY_SECONDS = 30.0
POLL_SECONDS = 0.005
LEAST_PACKETS = 200


@dataclass
class ProduceTimes:
    """When each record of options.prints was handed to the producer, by partition and offset."""

    firsts: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    moments: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def note(self, topic: str, values: Sequence[bytes], partitions: Sequence[int]) -> None:
        """Take note of a call that sends records to an empty log."""
        if topic != topics.OPTIONS_PRINTS:
            return
        now = time.monotonic()
        counts = np.bincount(np.asarray(partitions))
        for partition in np.flatnonzero(counts).tolist():
            self.firsts[partition].append(self.ends[partition])
            self.moments[partition].append(now)
            self.ends[partition] += int(counts[partition])

    def of(self, partition: int, offset: int) -> float:
        """Return when the record at an offset was sent."""
        return self.moments[partition][bisect.bisect_right(self.firsts[partition], offset) - 1]


@dataclass(frozen=True)
class Receipts:
    """Packets as a consumer received them, and when by the monotonic clock, which all processes of a machine share."""

    values: list[bytes]
    moments: list[float]


def receive(settings: Settings, ended: Event, ready: Event, found: Connection) -> None:
    """Read packets as they come until told to end; runs in a process of its own, so that nothing here delays it."""
    name = topics.full_name(settings.namespace, topics.FLOW_PACKETS)
    consumer = Consumer(
        {"bootstrap.servers": settings.bootstrap, "group.id": "flowapp.bench", "enable.auto.commit": False, "fetch.wait.max.ms": 5}
    )
    consumer.assign([TopicPartition(name, partition, 0) for partition in range(settings.topic_partitions)])
    ready.set()
    values: list[bytes] = []
    moments: list[float] = []
    while not ended.is_set():
        messages = consumer.consume(500, POLL_SECONDS)
        now = time.monotonic()
        for message in messages:
            if message.error() is None:
                values.append(message.value())
                moments.append(now)
    consumer.close()
    found.send(Receipts(values, moments))


@contextmanager
def receiver(settings: Settings) -> Iterator[Callable[[], Receipts]]:
    """Run `receive` for the length of a `with` block; what it gives ends it and returns what was received."""
    context = multiprocessing.get_context("spawn")
    ended, ready = context.Event(), context.Event()
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=receive, args=(settings, ended, ready, there), daemon=True)
    process.start()

    def collect() -> Receipts:
        ended.set()
        found: Receipts = here.recv()
        return found

    try:
        if not ready.wait(READY_SECONDS):
            raise StackError("latency: the consumer did not start")
        yield collect
    finally:
        ended.set()
        process.join(READY_SECONDS)


def latency_figure(rig: Rig, scale: float) -> list[Figure]:
    """Measure at 5 thousand prints a second, paced as live."""
    with rig.namespace("latency") as base:
        settings = tape.tape_settings(base, PRINTS_PER_SECOND, speed=1.0)
        Pins.check_or_write(settings, edge=True)
        times = ProduceTimes()
        with worker(settings) as running, receiver(settings) as collect:
            wait_until_assigned(running)
            began = time.monotonic()
            _feed(settings, times, max(SECONDS // 2, round(SECONDS * scale)))
            threading.Event().wait(DRAIN_SECONDS)
            receipts = collect()
        return [_figure(settings, times, receipts, began + WARM_UP_SECONDS)]


def _feed(settings: Settings, times: ProduceTimes, seconds: int) -> None:
    tap = tape.Tap(KafkaProducer(settings.bootstrap, client_id="flow-bench"), settings.namespace, (topics.OPTIONS_PRINTS,), times.note)
    try:
        run = tape.edge(settings, tap, seconds)
        run.begin()
        run.run()
    finally:
        tap.close()


def _figure(settings: Settings, times: ProduceTimes, receipts: Receipts, since: float) -> Figure:
    frame = Codec(HttpRegistry(settings.registry_url)).decode(topics.FLOW_PACKETS, receipts.values).frame
    received = np.asarray(receipts.moments)[frame["_row"].to_numpy()]
    sent = np.array([times.of(p, o) for p, o in frame.select("origin_partition", "origin_offset").iter_rows()])
    taken = (received - sent)[sent >= since] * 1000
    if taken.size < LEAST_PACKETS:
        raise StackError(f"latency: {taken.size} packets came, at least {LEAST_PACKETS} are needed")
    p50, p99, most = (float(value) for value in (*np.percentile(taken, [50, 99]), taken.max()))
    detail = {"p50": round(p50, 1), "p99": round(p99, 1), "max": round(most, 1), "prints_per_second": PRINTS_PER_SECOND}
    return Figure("latency_ms", "ms at p99", p99, 100.0, better="less", records=int(taken.size), detail=detail)
