"""The raw topics as an edge reads them back at its start: where their ends stand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, TopicPartition

from flowapp import topics
from flowapp.engine.producer import Sent
from flowapp.errors import BrokerUnavailable, NamespaceError
from flowapp.settings import Settings

BROKER_SECONDS = 10.0
READ_SECONDS = 60.0
STILL_SECONDS = 1.0
LOOK_SECONDS = 0.2
FETCH_RECORDS = 2000
POLL_SECONDS = 0.05
# A partition is without a leader for a moment after it was made or moved.
_PASSING = (confluent_kafka.KafkaError.NOT_LEADER_FOR_PARTITION, confluent_kafka.KafkaError.LEADER_NOT_AVAILABLE)
_ABSENT = (confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART, confluent_kafka.KafkaError._UNKNOWN_PARTITION)


class RawLog(Protocol):
    """The newest values of a topic's partitions; topics without their namespace."""

    def settle(self, names: Sequence[str], partitions: Sequence[int]) -> None:
        """Wait until nothing that an earlier edge sent is still on its way."""

    def tails(self, topic: str, partitions: Sequence[int], count: int | None) -> dict[int, list[bytes]]:
        """Return the newest `count` values of partitions (None: all), oldest first."""

    def close(self) -> None:
        """Let go of the connection."""


class MemoryRawLog:
    """The in-memory twin, over what a MemoryProducer was given."""

    def __init__(self, namespace: str, sent: Sequence[Sent]) -> None:
        self._namespace, self._sent = namespace, sent

    def settle(self, names: Sequence[str], partitions: Sequence[int]) -> None:
        pass

    def tails(self, topic: str, partitions: Sequence[int], count: int | None) -> dict[int, list[bytes]]:
        name = topics.full_name(self._namespace, topic)
        found: dict[int, list[bytes]] = {partition: [] for partition in partitions}
        for record in self._sent:
            if record.topic == name and record.partition in found:
                found[record.partition].append(record.value)
        return {partition: values[-count:] if count else values for partition, values in found.items()}

    def close(self) -> None:
        pass


class KafkaRawLog:
    """The topics of a namespace on the broker."""

    def __init__(self, settings: Settings) -> None:
        self._namespace, self._bootstrap = settings.namespace, settings.bootstrap
        self._consumer = Consumer(
            {"bootstrap.servers": settings.bootstrap, "group.id": "flowapp.edge", "enable.auto.commit": False, "fetch.wait.max.ms": 10}
        )

    def settle(self, names: Sequence[str], partitions: Sequence[int]) -> None:
        places = [(name, partition) for name in names for partition in partitions]
        ends, since = [self._ends(*place) for place in places], time.monotonic()
        deadline = since + READ_SECONDS
        while time.monotonic() - since < STILL_SECONDS:
            time.sleep(LOOK_SECONDS)
            now = [self._ends(*place) for place in places]
            if now != ends:
                ends, since = now, time.monotonic()
            if time.monotonic() > deadline:
                raise NamespaceError(f"somebody else still writes to the raw topics of namespace {self._namespace}; stop it first")

    def tails(self, topic: str, partitions: Sequence[int], count: int | None) -> dict[int, list[bytes]]:
        name = topics.full_name(self._namespace, topic)
        wanted: dict[int, int] = {}
        places = []
        for partition in partitions:
            low, high = self._ends(topic, partition)
            first = low if count is None else max(low, high - count)
            if high > first:
                # Raw logs are written without transactions, so their offsets are contiguous.
                wanted[partition] = high - first
                places.append(TopicPartition(name, partition, first))
        found: dict[int, list[bytes]] = {partition: [] for partition in partitions}
        if places:
            self._consumer.assign(places)
            self._fill(name, found, wanted)
            self._consumer.unassign()
        return found

    def _fill(self, name: str, found: dict[int, list[bytes]], wanted: dict[int, int]) -> None:
        deadline = time.monotonic() + READ_SECONDS
        missing = sum(wanted.values())
        while missing:
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"{name} could not be read to its end in {READ_SECONDS:.0f} s")
            for message in self._consumer.consume(min(FETCH_RECORDS, missing), timeout=POLL_SECONDS):
                if message.error():
                    raise BrokerUnavailable(f"{name} could not be read: {message.error()}")
                values = found[message.partition()]
                if len(values) < wanted[message.partition()]:
                    values.append(message.value() or b"")
                    missing -= 1

    def count(self, topic: str, partition: int) -> int:
        """Return how many records a partition holds."""
        low, high = self._ends(topic, partition)
        return high - low

    def close(self) -> None:
        self._consumer.close()

    def _ends(self, topic: str, partition: int) -> tuple[int, int]:
        name = topics.full_name(self._namespace, topic)
        deadline = time.monotonic() + BROKER_SECONDS
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=BROKER_SECONDS)
                return int(low), int(high)
            except KafkaException as error:
                code = error.args[0].code()
                if code in _ABSENT:
                    raise NamespaceError(f"{name} partition {partition} does not exist on {self._bootstrap}; run `flow init`") from error
                if code not in _PASSING or time.monotonic() > deadline:
                    raise BrokerUnavailable(f"{name} on {self._bootstrap} could not be read: {error.args[0].str()}") from error
                time.sleep(LOOK_SECONDS)
