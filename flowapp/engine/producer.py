"""How records leave: a producer that neither loses, reorders nor doubles what it was given."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import confluent_kafka

from flowapp.engine.ending import end_process

Headers = Sequence[tuple[str, bytes]]

QUEUE_MAX_MESSAGES = 200_000
QUEUE_MAX_KBYTES = 131_072
MESSAGE_MAX_BYTES = 8 << 20
LINGER_MS = 5
POLL_SECONDS = 0.2
LOG_SECONDS = 5.0

log = logging.getLogger("flowapp.engine.producer")


class Producer(Protocol):
    """Takes records of one topic in order; the order within a partition is kept."""

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None],
        partitions: Sequence[int],
        timestamps: Sequence[int],
        headers: Headers | None = None,
    ) -> None:
        """Queue records of `topic` (its full name); blocks while the queue is full, so never call it on an event loop.

        Args:
            values, keys, partitions, timestamps: of equal length, a record each; timestamps in ms.
            headers: headers of every one of these records.
        """

    def flush(self) -> None:
        """Block until everything sent before is delivered."""

    def depth(self) -> int:
        """Return how many records are queued or in flight."""

    def close(self) -> None:
        """Deliver what is queued, then let go of the connection."""


class KafkaProducer:
    """The producer on librdkafka: idempotent, without gaps, waiting for the broker however long that takes.

    librdkafka's batch call takes neither timestamps nor headers, so records go one by one: 1.2 us each, 2 with headers.
    """

    def __init__(
        self, bootstrap: str, *, client_id: str = "flowapp", on_fatal: Callable[[str], Any] = end_process, linger_ms: float = LINGER_MS
    ) -> None:
        self._on_fatal = on_fatal
        self._closed = threading.Event()
        self._logged = 0.0
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": client_id,
                "enable.idempotence": True,
                "enable.gapless.guarantee": True,
                "message.timeout.ms": 0,
                "delivery.report.only.error": True,
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "message.max.bytes": MESSAGE_MAX_BYTES,
                "queue.buffering.max.messages": QUEUE_MAX_MESSAGES,
                "queue.buffering.max.kbytes": QUEUE_MAX_KBYTES,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 2,
                "error_cb": self._on_error,
            }
        )
        # Delivery reports and fatal errors are served here, also while nobody sends.
        self._poller = threading.Thread(target=self._poll, name="producer-poll", daemon=True)
        self._poller.start()

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None],
        partitions: Sequence[int],
        timestamps: Sequence[int],
        headers: Headers | None = None,
    ) -> None:
        produce = self._producer.produce
        options: dict[str, Any] = {} if headers is None else {"headers": list(headers)}
        with self._ending():
            for value, key, partition, timestamp in zip(values, keys, partitions, timestamps, strict=True):
                while True:
                    try:
                        produce(topic, value, key, partition, timestamp=timestamp, **options)
                        break
                    except BufferError:
                        self._producer.poll(POLL_SECONDS)

    def flush(self) -> None:
        with self._ending():
            while self._producer.flush(1.0):
                pass
            self._producer.poll(0)

    def depth(self) -> int:
        return len(self._producer)

    def close(self) -> None:
        self.flush()
        self._closed.set()
        self._poller.join()

    def _poll(self) -> None:
        while not self._closed.is_set():
            with self._ending():
                self._producer.poll(POLL_SECONDS)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """End the process on a fatal error, which the client raises out of whichever call comes next."""
        try:
            yield
        except (confluent_kafka.KafkaException, SystemError) as error:
            self._on_fatal(f"the producer can no longer guarantee order and completeness: {error}")

    def _on_error(self, error: confluent_kafka.KafkaError) -> None:
        if time.monotonic() - self._logged > LOG_SECONDS:
            self._logged = time.monotonic()
            log.warning("the producer waits for the broker: %s", error.str())


class Sent(NamedTuple):
    """A record that a `MemoryProducer` was given."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    timestamp: int
    headers: tuple[tuple[str, bytes], ...]


class MemoryProducer:
    """The in-memory twin: keeps what it was given, in order; `delivered` counts what a flush has covered."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.delivered = 0

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None],
        partitions: Sequence[int],
        timestamps: Sequence[int],
        headers: Headers | None = None,
    ) -> None:
        shared = tuple(headers or ())
        for value, key, partition, timestamp in zip(values, keys, partitions, timestamps, strict=True):
            self.sent.append(Sent(topic, partition, key, value, timestamp, shared))

    def flush(self) -> None:
        self.delivered = len(self.sent)

    def depth(self) -> int:
        return len(self.sent) - self.delivered

    def close(self) -> None:
        self.flush()
