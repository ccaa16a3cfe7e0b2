"""Where a batch's outputs and refused records go: encoded once per topic, sent with key, partition and event time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import polars as pl

from flowapp import topics
from flowapp.core.fold import Refused, Result
from flowapp.engine.metrics import Metrics
from flowapp.engine.poll import Poll
from flowapp.engine.producer import Headers, Producer

KEY_COLUMN, TIME_COLUMN = "underlying_id", "source_ts"
DEAD_LETTER = "DeadLetter"
# One record a print: its headers would cost more than half of sending it.
WITHOUT_RUN_FACTS = frozenset({topics.OPTIONS_SIGNAL})
DECODE_STAGE = "decode"


# Calls, and calls again while the registry is down.
Patiently = Callable[[Callable[[], list[bytes]]], list[bytes]]


class Encoder(Protocol):
    """The half of the codec that the sink needs."""

    def encode(self, name: str, frame: pl.DataFrame) -> list[bytes]:
        """Encode the rows of a record as framed values."""


@dataclass(frozen=True)
class DeadLetter:
    """A refused record: its row in the poll, where it was refused and why."""

    row: int
    stage: str
    reason: str
    error: str
    schema_id: int | None = None


@dataclass
class Outbox:
    """What a poll brought about, by topic without namespace, each partition's part in the order in which it came about."""

    parts: dict[str, list[tuple[int, pl.DataFrame]]] = field(default_factory=dict)
    dead: list[DeadLetter] = field(default_factory=list)

    def add(self, partition: int, results: Sequence[Result]) -> None:
        """Take results of one partition over."""
        for result in results:
            for topic, frame in result.outputs.items():
                if frame.height:
                    self.parts.setdefault(topic, []).append((partition, frame))

    def refuse(self, poll: Poll, refused: Sequence[Refused]) -> None:
        """Take records over that did not survive judging or folding."""
        self.dead += [DeadLetter(poll.row_of(item.partition, item.offset), item.stage, item.stage, item.error) for item in refused]


class Sink:
    """Encodes and sends what an agent brings about."""

    def __init__(self, namespace: str, agent: str, input_topic: str, encoder: Encoder, producer: Producer, metrics: Metrics) -> None:
        self._namespace = namespace
        self._agent = agent
        self._input_topic = input_topic
        self._encoder = encoder
        self._producer = producer
        self._metrics = metrics

    def send(self, outbox: Outbox, poll: Poll, patiently: Patiently, headers: Headers) -> None:
        """Send everything; run facts go to `headers`, so that values stay comparable."""
        for topic, parts in outbox.parts.items():
            frame = pl.concat([frame for _, frame in parts]) if len(parts) > 1 else parts[0][1]
            partitions = [partition for partition, part in parts for _ in range(part.height)]
            with self._metrics.stage(self._agent, "encode"):
                values = patiently(partial(self._encoder.encode, topics.BY_NAME[topic].records[0], frame))
            keys = frame[KEY_COLUMN].cast(pl.Binary).to_list()
            facts = None if topic in WITHOUT_RUN_FACTS else headers
            self._send(topic, values, keys, partitions, frame[TIME_COLUMN].to_list(), facts)
        if outbox.dead:
            self._send_dead(outbox.dead, poll, patiently, headers)

    def _send_dead(self, dead: list[DeadLetter], poll: Poll, patiently: Patiently, headers: Headers) -> None:
        dead = sorted(dead, key=lambda letter: letter.row)
        frame = pl.DataFrame([self._row(letter, poll) for letter in dead], infer_schema_length=None, schema_overrides=_DEAD_TYPES)
        values = patiently(partial(self._encoder.encode, DEAD_LETTER, frame))
        records = [poll.records[letter.row] for letter in dead]
        partitions = [int(poll.partitions[letter.row]) for letter in dead]
        self._send(topics.DEAD_LETTERS, values, [r.key for r in records], partitions, [r.timestamp for r in records], headers)
        for letter in dead:
            self._metrics.dead_letters.labels(self._agent, letter.stage).inc()

    def _row(self, letter: DeadLetter, poll: Poll) -> Mapping[str, Any]:
        record = poll.records[letter.row]
        partition = int(poll.partitions[letter.row])
        return {
            "id": f"{self._input_topic}:{partition}:{record.offset}",
            "stage": letter.stage,
            "reason": letter.reason,
            "error": letter.error,
            "topic": self._input_topic,
            "partition": partition,
            "offset": record.offset,
            "source_ts": record.timestamp,
            "key": record.key,
            "raw": record.value or b"",
            "schema_id": letter.schema_id,
        }

    def _send(
        self, topic: str, values: list[bytes], keys: list[bytes | None], partitions: list[int], times: list[int], headers: Headers | None
    ) -> None:
        with self._metrics.stage(self._agent, "send"):
            name = topics.full_name(self._namespace, topic)
            self._producer.send(name, values, keys=keys, partitions=partitions, timestamps=times, headers=headers)
        self._metrics.outputs.labels(self._agent, topic).inc(len(values))
        self._metrics.output_bytes.labels(self._agent, topic).inc(sum(map(len, values)))


_DEAD_TYPES = {
    "partition": pl.Int64,
    "offset": pl.Int64,
    "source_ts": pl.Int64,
    "key": pl.Binary,
    "raw": pl.Binary,
    "schema_id": pl.Int64,
}
