"""An agent's changelog, one partition at a time: transactions in, restored rows out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from flowapp.engine import position as positions
from flowapp.engine.disk import Disk
from flowapp.engine.position import POSITION_KEY, Place, Position
from flowapp.engine.state import Rows
from flowapp.errors import BrokerUnavailable, StateError

MESSAGE_MAX_BYTES = 8 << 20
# A broker may be away this long in the middle of a checkpoint; a new owner does not wait for it, it aborts.
TRANSACTION_TIMEOUT_MS = 300_000
CALL_SECONDS = 10.0
RESTORE_BATCH_ROWS = 10_000
RESTORE_POLL_SECONDS = 0.05
STALLED_SECONDS = 60.0

log = logging.getLogger("flowapp.engine.changelog")


def transactional_id(app_id: str, agent: str, partition: int) -> str:
    """Return the id under which only one owner of a partition can write."""
    return f"{app_id}-{agent}-p{partition}"


class ChangelogWriter:
    """Writes checkpoints of one partition, each as one transaction."""

    def __init__(self, bootstrap: str, place: Place, transactional_id: str) -> None:
        self._place = place
        self._delivered_offset = -1
        self._error: KafkaError | None = None
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap,
                "client.id": transactional_id,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "message.max.bytes": MESSAGE_MAX_BYTES,
                "compression.type": "lz4",
                "linger.ms": 5,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 2,
            }
        )

    def fence(self) -> None:
        """Keep every earlier owner from writing, and abort what it left open; waits while the broker is away."""
        self._insist("taking the partition over", self._producer.init_transactions)

    def write(self, rows: Rows, position: Position, on_delivered: Callable[[], None] = lambda: None) -> int:
        """Write rows (None deletes) and the position row in one transaction; return the offset that follows them.

        Raises:
            StateError: the transaction was refused, or it cannot be told whether it was committed.
        """
        self._delivered_offset = -1
        try:
            self._producer.begin_transaction()
            for key, row in rows.items():
                self._produce(key, row)
            self._produce(POSITION_KEY, positions.encode(position), on_delivery=self._on_delivery)
            while self._producer.flush(1.0):
                pass
        except (KafkaException, SystemError) as error:
            # The client raises a fatal error out of whatever callback runs, from which SystemError may come.
            raise self._refused(error) from error
        if self._error is not None:
            raise self._refused(KafkaException(self._error))
        on_delivered()
        self._insist("committing a checkpoint", self._producer.commit_transaction)
        return self._delivered_offset + 1

    def close(self) -> None:
        """Let go of the connections."""
        self._producer.close()

    def _produce(self, key: bytes, row: bytes | None, **options: Any) -> None:
        while True:
            try:
                self._producer.produce(self._place.changelog, row, key, self._place.partition, **options)
                break
            except BufferError:
                self._producer.poll(0.1)

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self._delivered_offset = message.offset()
        else:
            self._error = error

    def _insist(self, doing: str, call: Callable[[float], None]) -> None:
        """Call again as long as the client says that the same call may be resumed."""
        while True:
            try:
                call(CALL_SECONDS)
                break
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise self._refused(error) from error
                log.warning("%s: %s waits for the broker: %s", self._place, doing, error.args[0].str())

    def _refused(self, error: Exception) -> StateError:
        reason = error.args[0].str() if isinstance(error, KafkaException) else f"fatal error in the client ({error})"
        return StateError(f"{self._place}: the broker refused a checkpoint of agent {self._place.agent}: {reason}")


class ChangelogReader:
    """Reads one partition's changelog, and the bounds of its raw log."""

    def __init__(self, bootstrap: str, place: Place) -> None:
        self._place = place
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "flowapp.restore",
                "client.id": f"restore-{place.agent}-p{place.partition}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "max.partition.fetch.bytes": 4 << 20,
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 16_384,
                "log_level": 2,
            }
        )

    def bounds(self, topic: str) -> tuple[int, int]:
        """Return the first offset and the one after the last of this partition of a topic; waits while the broker is away."""
        while True:
            try:
                low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, self._place.partition), timeout=CALL_SECONDS)
            except KafkaException as error:
                if error.args[0].code() in (KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                    raise StateError(f"{topic}[{self._place.partition}] does not exist; create it with: flow init") from error
                log.warning("%s: waits for the broker: %s", self._place, error.args[0].str())
                time.sleep(1.0)
            else:
                return low, high

    def batches(self, start: int, end: int) -> Iterator[dict[bytes, bytes | None]]:
        """Yield committed rows from offset `start` to `end`, in log order, some thousand at a time."""
        self._consumer.assign([TopicPartition(self._place.changelog, self._place.partition, start)])
        moved = time.monotonic()
        done = False
        while not done:
            rows: dict[bytes, bytes | None] = {}
            for message in self._consumer.consume(RESTORE_BATCH_ROWS, RESTORE_POLL_SECONDS):
                moved = time.monotonic()
                error = message.error()
                if error is None:
                    rows[message.key()] = message.value()
                elif error.code() == KafkaError._PARTITION_EOF:
                    # An end seen before `end` is that of an older high watermark.
                    done = message.offset() >= end
                elif not error.retriable():
                    raise StateError(f"{self._place}: {self._place.changelog} cannot be read: {error.str()}")
            if rows:
                yield rows
            if time.monotonic() - moved > STALLED_SECONDS:
                raise BrokerUnavailable(f"{self._place}: restoring from {self._place.changelog} stands still before offset {end}")

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


def restore(disk: Disk, place: Place, reader: ChangelogReader) -> tuple[Position | None, int]:
    """Bring a disk up to its changelog; return its position row and how many rows were read.

    Call it after the old owner was fenced: nothing is appended meanwhile.
    """
    low, high = reader.bounds(place.changelog)
    local = positions.decode(disk.get(POSITION_KEY))
    start = disk.changelog_offset
    read = 0
    if start is not None:
        positions.check_disk(place, start, high)
        # One more offset is the end marker of the last transaction.
        if high - start <= 1:
            return local, 0
        for rows in reader.batches(start, high):
            disk.write(rows)
            read += len(rows)
        current = positions.decode(disk.get(POSITION_KEY))
        if local is not None and current is not None and current.number - local.number <= 1:
            disk.write({}, high)
            return current, read
        # Deletes that this disk missed may have been compacted away: what it holds cannot be trusted.
        log.info("%s: the disk is more than one checkpoint behind, restoring it whole", place)
    return _restore_whole(disk, reader, low, high)


def _restore_whole(disk: Disk, reader: ChangelogReader, low: int, high: int) -> tuple[Position | None, int]:
    disk.wipe()
    read = 0
    if high > low:
        for rows in reader.batches(low, high):
            disk.write(rows, logged=False)
            read += len(rows)
        disk.flush()
    disk.write({}, high)
    return positions.decode(disk.get(POSITION_KEY)), read
