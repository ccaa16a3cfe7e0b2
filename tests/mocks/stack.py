"""A namespace with a tape of mock records, workers on it, and what came out compared with `core.fold.run`."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flowapp import runs, topic_admin, topics
from flowapp.core.fold import OFFSET, PARTITION, MemoryState, run
from flowapp.engine.position import POSITION_KEY, Position, decode
from flowapp.engine.producer import KafkaProducer
from flowapp.records.codec import ROW, Codec
from flowapp.records.registry import HttpRegistry
from flowapp.settings import Settings, variable_table
from tests.mocks.tally import OUTPUTS, TallyCodec, TallyFold, encode
from tests.waiting import eventually

REPOSITORY = Path(__file__).parents[2]
MOCKS = "tests.mocks.worker"
KEYS = 200
TICK_EVERY = 400
FIRST_MS = 1_700_000_000_000
FEED_SECONDS = 0.05


@dataclass(frozen=True)
class Message:
    """A record of a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: tuple[tuple[str, bytes], ...]


def read_topic(settings: Settings, topic: str, *, committed: bool = False) -> list[Message]:
    """Read a whole topic (its full name), each partition in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap, "group.id": "tests", "enable.auto.commit": False, "enable.partition.eof": True,
            "isolation.level": "read_committed" if committed else "read_uncommitted", "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 5,
        }
    )  # fmt: skip
    found: list[Message] = []
    places = [TopicPartition(topic, partition, 0) for partition in range(settings.topic_partitions)]
    consumer.assign(places)
    ended: set[int] = set()
    deadline = time.monotonic() + 60
    while len(ended) < len(places):
        assert time.monotonic() < deadline, f"{topic} could not be read"
        for message in consumer.consume(5000, 0.01):
            error = message.error()
            if error is None:
                headers = tuple(message.headers() or ())
                found.append(
                    Message(message.partition(), message.offset(), message.key(), message.value(), message.timestamp()[1], headers)
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    consumer.close()
    return found


class Worker:
    """A worker process, with mock agents unless told, its log and its state directory."""

    def __init__(
        self, settings: Settings, number: int, words: Sequence[str] = ("--without-web",), app: str = MOCKS, **environment: str
    ) -> None:
        self.settings = Settings.load({**settings.environment(), "WORKER_ID": str(number)}, dotenv=Path(os.devnull))
        self.number = number
        self.log_path = settings.home / f"{settings.namespace}-worker-{number}.log"
        log = self.log_path.open("ab")
        self._begins = self.log_path.stat().st_size
        command = [sys.executable, "-m", "faust", "-q", "-A", app, "worker", "-L", "uvloop", *words]
        ours = {variable for variable, *_ in variable_table()}
        environ = {name: value for name, value in os.environ.items() if name not in ours}
        environ |= {**settings.environment(), "WORKER_ID": str(number), "PYTHONPATH": str(REPOSITORY), **environment}
        # Not in the repository: a developer's `.env` is not the test's.
        self.process = subprocess.Popen(command, cwd=settings.home, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it without warning."""
        self.process.kill()
        self.wait(10)

    def stop(self, seconds: float = 30.0) -> int:
        """Stop it in good order; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 30.0) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(seconds)

    def lines(self) -> list[dict[str, Any]]:
        """Return what this run logged."""
        text = self.log_path.read_bytes()[self._begins :].decode(errors="replace")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def said(self, words: str) -> bool:
        """Whether a log line of this run contains `words`."""
        return any(words in line["msg"] for line in self.lines())

    def ready(self, times: int = 1) -> bool:
        """Whether partitions were taken over so many times in this run."""
        if self.process.poll() is not None:
            raise AssertionError(f"the worker ended with {self.process.returncode}: {[line['msg'] for line in self.lines()][-3:]}")
        return sum("owns partitions" in line["msg"] for line in self.lines()) >= times

    def owned(self, agent: str) -> list[int]:
        """Return the partitions that this run took over last."""
        taken = [line["context"]["partitions"] for line in self.lines() if line["context"].get("agent") == agent]
        return list(taken[-1]) if taken else []


class Stack:
    """A namespace under test."""

    def __init__(self, settings: Settings, agents: Sequence[str] = ("options",)) -> None:
        self.settings = settings
        self.agents = agents
        self.codec = TallyCodec(Codec(HttpRegistry(settings.registry_url)))
        self.workers: list[Worker] = []
        self._producer = KafkaProducer(settings.bootstrap)
        self._committed: Consumer | None = None
        self._written: dict[str, int] = dict.fromkeys(agents, 0)

    def topic(self, name: str) -> str:
        """Return a topic's full name."""
        return topics.full_name(self.settings.namespace, name)

    def feed(self, records: int, agent: str = "options", seed: int = 1, bad: Sequence[bytes] = ()) -> None:
        """Append records to an agent's raw topic, ticks in all partitions among them, and `bad` values at random places."""
        chance = random.Random(f"{seed}:{self._written[agent]}")
        places = chance.sample(range(records), len(bad)) if bad else []
        odd = dict(zip(places, bad, strict=True))
        values: list[bytes] = []
        keys: list[bytes | None] = []
        partitions: list[int] = []
        times: list[int] = []

        def add(value: bytes, key: bytes | None, partition: int, moment: int) -> None:
            values.append(value)
            keys.append(key)
            partitions.append(partition)
            times.append(moment)

        for number in range(self._written[agent], self._written[agent] + records):
            moment = FIRST_MS + number
            key = chance.randrange(KEYS)
            partition = key % self.settings.topic_partitions
            if number % TICK_EVERY == TICK_EVERY - 1:
                for each in range(self.settings.topic_partitions):
                    add(encode(0, 0, moment, moment), None, each, moment)
            value = encode(key, chance.randrange(1, 1000), moment)
            value = odd.get(number - self._written[agent], value)
            add(value, f"U{key}".encode(), partition, moment)
        self._producer.send(self.topic(topics.AGENT_INPUTS[agent]), values, keys=keys, partitions=partitions, timestamps=times)
        self._producer.flush()
        self._written[agent] += records

    def start(self, number: int = 0, words: Sequence[str] = ("--without-web",), **environment: str) -> Worker:
        """Start a worker."""
        worker = Worker(self.settings, number, words, MOCK_AGENTS=",".join(self.agents), **environment)
        self.workers.append(worker)
        return worker

    def wipe_disk(self, number: int = 0) -> None:
        """Delete a worker's state directory."""
        shutil.rmtree(self.settings.home / self.settings.namespace / "state" / str(number))

    def close(self) -> None:
        """End what still runs."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGCONT)
                worker.kill()
        if self._committed is not None:
            self._committed.close()
        self._producer.close()

    def ends(self, agent: str = "options") -> list[int]:
        """Return the end offset of each partition of an agent's raw topic."""
        return self.length(topics.AGENT_INPUTS[agent])

    def holds(self, topic: str) -> bool:
        """Whether a topic holds any record."""
        return any(self.length(topic))

    def length(self, topic: str) -> list[int]:
        """Return the end offset of each partition of a topic."""
        consumer = Consumer({"bootstrap.servers": self.settings.bootstrap, "group.id": "tests"})
        name = self.topic(topic)
        found = [consumer.get_watermark_offsets(TopicPartition(name, p), 10)[1] for p in range(self.settings.topic_partitions)]
        consumer.close()
        return found

    def committed(self, agent: str = "options") -> list[int]:
        """Return the offsets up to which checkpoints are reported to the consumer group."""
        if self._committed is None:
            group = topics.app_id(self.settings.namespace)
            self._committed = Consumer({"bootstrap.servers": self.settings.bootstrap, "group.id": group, "log_level": 2})
        name = self.topic(topics.AGENT_INPUTS[agent])
        deadline = time.monotonic() + 60
        while True:
            try:
                found = self._committed.committed([TopicPartition(name, p) for p in range(self.settings.topic_partitions)], 10)
                return [max(0, place.offset) for place in found]
            except KafkaException:
                # The group's coordinator is away or loading.
                if time.monotonic() > deadline:
                    raise
                time.sleep(FEED_SECONDS)

    def wait_applied(self, seconds: float = 60.0) -> None:
        """Wait until everything in the raw topics is applied and checkpointed."""
        for agent in self.agents:
            ends = self.ends(agent)
            eventually(partial(self._reached, agent, ends), seconds, f"agent {agent}'s position {ends}")

    def feed_until_moved(self) -> None:
        """Append a few records at a time until every agent has checkpointed something more."""
        begun = {agent: self.committed(agent) for agent in self.agents}
        self.feed_until(lambda: all(self.committed(agent) != begun[agent] for agent in self.agents))

    def feed_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Append a few records at a time until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:g} s"
            for agent in self.agents:
                self.feed(100, agent)
            time.sleep(FEED_SECONDS)

    def _reached(self, agent: str, ends: list[int]) -> bool:
        return self.committed(agent) == ends

    def positions(self, agent: str = "options") -> list[Position | None]:
        """Return the committed position row of each partition."""
        state = self.state(agent)
        return [decode(state[partition].get(POSITION_KEY)) for partition in range(self.settings.topic_partitions)]

    def state(self, agent: str = "options") -> dict[int, dict[bytes, bytes]]:
        """Return the rows that each partition's changelog amounts to."""
        rows: dict[int, dict[bytes, bytes]] = {partition: {} for partition in range(self.settings.topic_partitions)}
        for message in read_topic(self.settings, topics.changelog_name(self.settings.namespace, agent), committed=True):
            assert message.key is not None
            if message.value is None:
                rows[message.partition].pop(message.key, None)
            else:
                rows[message.partition][message.key] = message.value
        return rows

    def raw(self, agent: str = "options") -> pl.DataFrame:
        """Return the raw log as a frame, with rejects left out."""
        messages = sorted(read_topic(self.settings, self.topic(topics.AGENT_INPUTS[agent])), key=lambda m: (m.partition, m.offset))
        decoded = self.codec.decode("", [message.value for message in messages]).frame
        rows = decoded[ROW].to_list()
        return decoded.drop(ROW).with_columns(
            pl.Series(PARTITION, [messages[row].partition for row in rows], pl.Int64),
            pl.Series(OFFSET, [messages[row].offset for row in rows], pl.Int64),
        )

    def verify(self, agent: str = "options") -> dict[str, int]:
        """Compare outputs and state with those of `core.fold.run` on the same log; return repeats seen by topic.

        Equal records count once; a record that is missing, foreign, changed or out of order fails.
        """
        fold = TallyFold(agent)
        expected = run(fold, self.raw(agent))
        repeats = {}
        for topic in OUTPUTS[agent]:
            wanted = _by_partition(expected.outputs.get(topic), self.codec)
            seen: dict[int, dict[bytes, None]] = {}
            total = 0
            for message in read_topic(self.settings, self.topic(topic)):
                total += 1
                assert message.value is not None
                assert message.key == json.loads(message.value)["underlying_id"].encode()
                assert message.timestamp == json.loads(message.value)["source_ts"]
                seen.setdefault(message.partition, {})[message.value] = None
            for partition in range(self.settings.topic_partitions):
                found = list(seen.get(partition, {}))
                want = wanted.get(partition, [])
                assert len(found) == len(want), f"{topic}[{partition}] holds {len(found)} records, {len(want)} were due"
                assert found == want, f"{topic}[{partition}] differs"
            repeats[topic] = total - sum(map(len, seen.values()))
        self._verify_state(agent, expected.states)
        return repeats

    def _verify_state(self, agent: str, expected: dict[int, MemoryState]) -> None:
        for partition, rows in self.state(agent).items():
            rows.pop(POSITION_KEY, None)
            want = expected[partition].rows if partition in expected else {}
            assert rows == want, f"state of {agent}[{partition}] differs in {len(set(rows.items()) ^ set(want.items()))} rows"

    def outputs(self, agent: str = "options") -> int:
        """Return how many records an agent's output topics hold."""
        return sum(len(read_topic(self.settings, self.topic(topic))) for topic in OUTPUTS[agent])

    def configurations(self, agent: str = "options") -> list[list[dict[str, Any]]]:
        """Return, by partition, the recorded configurations in order of the offsets from which they hold."""
        rows = runs.read_all(self.settings)
        return [runs.configs(rows, agent, partition) for partition in range(self.settings.topic_partitions)]

    def dead_letters(self) -> Counter[str]:
        """Return how often each dead letter id stands in the log."""
        values = [message.value for message in read_topic(self.settings, self.topic(topics.DEAD_LETTERS))]
        frame = Codec(HttpRegistry(self.settings.registry_url)).decode(topics.DEAD_LETTERS, values).frame
        return Counter(frame["id"].to_list())


def _by_partition(frame: pl.DataFrame | None, codec: TallyCodec) -> dict[int, list[bytes]]:
    if frame is None:
        return {}
    return {int(key[0]): codec.encode("", part) for key, part in frame.partition_by("partition", as_dict=True, maintain_order=True).items()}


def namespaced(stack_settings: Settings, agents: Sequence[str] = ("options",), **overrides: object) -> Iterator[Stack]:
    """Yield a stack in a namespace of its own, and end its workers.

    The namespace stays: after a kill its group cannot be deleted for a while, and the broker goes with the test run.
    """
    name = f"engine{os.getpid()}_{next(_numbers)}"
    settings = Settings.load(
        stack_settings.environment(), dotenv=Path(os.devnull), **{"flow_namespace": name, "checkpoint_ms": 200, **overrides}
    )
    topic_admin.create(settings)
    stack = Stack(settings, agents)
    try:
        yield stack
    finally:
        stack.close()


_numbers = itertools.count()
