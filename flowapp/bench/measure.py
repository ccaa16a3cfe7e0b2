"""Measuring a worker from outside: committed offsets, CPU seconds and memory of its process."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from flowapp.errors import StackError

SAMPLE_SECONDS = 0.05
REQUEST_SECONDS = 10.0
MILLION = 1_000_000


@dataclass(frozen=True)
class Figure:
    """One line of the table: what was asked of the engine and what it did."""

    name: str
    unit: str
    value: float
    target: float | None = None
    better: str = "more"
    records: int = 0
    seconds: float = 0.0
    cpu_seconds_per_million: float | None = None
    peak_mb_per_million: float | None = None
    peak_mb: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "more" else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        """Return the figure as plain values."""
        return {**asdict(self), "met": self.met}


class Usage:
    """CPU seconds and peak memory of a process, sampled until it is stopped."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self.series: list[tuple[float, float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True, name="usage")
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            try:
                with self.process.oneshot():
                    cpu, memory = self.process.cpu_times(), self.process.memory_info()
            except psutil.NoSuchProcess:
                return
            self.series.append((time.monotonic(), cpu.user + cpu.system, memory.rss))

    def stop(self) -> None:
        """End the sampling."""
        self._stop.set()
        self._thread.join()

    def cpu_between(self, start: float, end: float) -> float:
        """Return CPU seconds used between two moments of the monotonic clock."""
        inside = [cpu for moment, cpu, _ in self.series if start <= moment <= end]
        return inside[-1] - inside[0] if len(inside) > 1 else 0.0

    def peak_between(self, start: float, end: float) -> int:
        """Return the largest resident memory between two moments, bytes."""
        return max((rss for moment, _, rss in self.series if start <= moment <= end), default=0)


@dataclass
class Progress:
    """Records of a group that are committed, by moment of the monotonic clock."""

    series: list[tuple[float, int]] = field(default_factory=list)

    def moment_of(self, records: int) -> float:
        """Return the moment at which `records` were committed, linear between samples."""
        before = self.series[0]
        for sample in self.series:
            if sample[1] >= records:
                gained = sample[1] - before[1]
                share = (records - before[1]) / gained if gained else 1.0
                return before[0] + share * (sample[0] - before[0])
            before = sample
        return self.series[-1][0]


class Group:
    """What a consumer group has committed of one topic."""

    def __init__(self, bootstrap: str, group: str, topic: str, partitions: int) -> None:
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self.group, self.places = group, [TopicPartition(topic, p) for p in range(partitions)]

    def committed(self) -> int:
        """Return the committed records over all partitions."""
        asked = ConsumerGroupTopicPartitions(self.group, self.places)
        try:
            answer = self.admin.list_consumer_group_offsets([asked])[self.group].result(REQUEST_SECONDS)
        except KafkaException:
            return 0
        return sum(max(place.offset, 0) for place in answer.topic_partitions)

    def follow(self, total: int, deadline_seconds: float, alive: Callable[[], bool]) -> Progress:
        """Sample until `total` records are committed.

        Raises:
            StackError: the worker died, or the deadline passed.
        """
        progress, end = Progress(), time.monotonic() + deadline_seconds
        pause = threading.Event()
        while True:
            done = self.committed()
            progress.series.append((time.monotonic(), done))
            if done >= total:
                return progress
            if not alive():
                raise StackError(f"a worker ended while it was measured, at {done:,} of {total:,} records")
            if time.monotonic() > end:
                raise StackError(f"{done:,} of {total:,} records after {deadline_seconds:.0f} s")
            pause.wait(SAMPLE_SECONDS)


def stop_process(process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """End a process cleanly, by force when it does not within `seconds`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
