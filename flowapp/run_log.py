"""Run records on the broker: the compacted topic `ops.runs`, read whole and appended to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import confluent_kafka
import polars as pl
from confluent_kafka import Consumer, KafkaException, TopicPartition

from flowapp import topics
from flowapp.errors import BrokerUnavailable, NamespaceError
from flowapp.records import schemas
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry
from flowapp.settings import Settings

Row: TypeAlias = dict[str, Any]

BROKER_SECONDS = 10.0
READ_SECONDS = 30.0
POLL_SECONDS = 0.2
LEADER_SECONDS = 0.1
_NO_LEADER_YET = (confluent_kafka.KafkaError.NOT_LEADER_FOR_PARTITION, confluent_kafka.KafkaError.LEADER_NOT_AVAILABLE)
# One partition holds them all, so that they have one order.
PARTITION = 0
FIELDS = tuple(schemas.frame_schema("Run"))


class RunLog(Protocol):
    """Where Run records are kept."""

    def read_all(self) -> dict[str, Row]:
        """Return the newest row of every key."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows; returns when they are delivered."""


class MemoryRunLog:
    """The in-memory twin."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def read_all(self) -> dict[str, Row]:
        return {row["key"]: row for row in self.rows}

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows += [complete(row) for row in rows]


class KafkaRunLog:
    """`<namespace>.ops.runs` on the broker."""

    def __init__(self, settings: Settings) -> None:
        self._bootstrap = settings.bootstrap
        self._topic = topics.full_name(settings.namespace, topics.RUNS)
        self._codec = Codec(HttpRegistry(settings.registry_url))

    def read_all(self) -> dict[str, Row]:
        frame = self._codec.decode(topics.RUNS, self._values()).frame
        return {row["key"]: {name: row[name] for name in FIELDS} for row in frame.iter_rows(named=True)}

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        rows = [complete(row) for row in rows]
        values = self._codec.encode("Run", pl.DataFrame(rows, schema=schemas.frame_schema("Run")))
        producer = confluent_kafka.Producer({"bootstrap.servers": self._bootstrap, "enable.idempotence": True, "linger.ms": 0})
        failed: list[str] = []

        def report(error: Any, _message: Any) -> None:
            if error is not None:
                failed.append(str(error))

        for row, value in zip(rows, values, strict=True):
            producer.produce(self._topic, value, row["key"].encode(), PARTITION, on_delivery=report)
        if producer.flush(READ_SECONDS) or failed:
            raise BrokerUnavailable(f"{self._topic} could not be written: {'; '.join(failed) or 'the broker does not answer'}")

    def _values(self) -> list[bytes]:
        # Compaction leaves holes and a log's end may be one, so only the broker's word says that the end is reached.
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "flowapp.runs",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        try:
            low, high = _watermarks(consumer, TopicPartition(self._topic, PARTITION))
            if low == high:
                return []
            consumer.assign([TopicPartition(self._topic, PARTITION, low)])
            return list(_read_to_end(consumer, self._topic))
        except KafkaException as error:
            if error.args[0].code() in (confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART, confluent_kafka.KafkaError._UNKNOWN_PARTITION):
                raise NamespaceError(f"topic {self._topic} does not exist on {self._bootstrap}; run `flow init`") from error
            raise BrokerUnavailable(f"{self._topic} on {self._bootstrap} could not be read: {error}") from error
        finally:
            consumer.close()


def _watermarks(consumer: Any, place: Any) -> tuple[int, int]:
    """Return a partition's first offset and its end; a topic created a moment ago may still lack its leader."""
    deadline = time.monotonic() + BROKER_SECONDS
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=BROKER_SECONDS)
            return low, high
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                raise
        time.sleep(LEADER_SECONDS)


def _read_to_end(consumer: Any, topic: str) -> Iterator[bytes]:
    deadline = time.monotonic() + READ_SECONDS
    while time.monotonic() < deadline:
        message = consumer.poll(POLL_SECONDS)
        if message is None:
            continue
        if message.error() is None:
            yield message.value()
        elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
            return
        else:
            raise KafkaException(message.error())
    raise BrokerUnavailable(f"{topic} could not be read to its end in {READ_SECONDS:.0f} s")


def complete(row: Mapping[str, Any]) -> Row:
    """Return a row with every field; those not given are null, `ts` is now."""
    unknown = set(row) - set(FIELDS)
    if unknown:
        raise KeyError(f"Run has no field {', '.join(sorted(unknown))}")
    whole: Row = {name: row.get(name) for name in FIELDS}
    whole["sources"] = list(row.get("sources") or [])
    whole["ts"] = row.get("ts") or time.time_ns() // 1_000_000
    return whole
