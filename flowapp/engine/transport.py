"""Batched transport (`batched://`): a Faust message is a run of consecutive records of one partition, as fetched.

Stock Faust makes an object, a queue entry and an acknowledgement of every record. Here `Message.value` is the list of
records and `Message.offset` the last one's, so everything Faust does happens once per run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from typing import Any

import faust
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException, KafkaError
from aiokafka.protocol.group import LeaveGroupRequest
from faust.transport.consumer import ensure_TPset
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from faust.types.tuples import ack_lock

from flowapp.engine.ending import end_process

FETCH_MAX_WAIT_MS = 50
FETCH_MAX_BYTES = 32 << 20
LEAVE_SECONDS = 2.0
POLL_SECONDS = 0.1
WATCH_SECONDS = 1.0


class RunSchema(faust.Schema):  # type: ignore[misc]
    """Hands a run through as it is: Faust acknowledges and forgets what raises while it is decoded."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> Any:
        return None

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Any:
        return message.value


class LeanBuffer(dict[Any, Any]):
    """The fetcher's buffer, whose results are drained batch by batch: record by record costs more than decoding does."""

    def __setitem__(self, tp: Any, result: Any) -> None:
        if isinstance(result, FetchResult):
            result.getall = LeanDrain(result)
        super().__setitem__(tp, result)


class LeanDrain:
    """Takes the place of `FetchResult.getall`: the same records, as the parser made them, without a ConsumerRecord of each."""

    def __init__(self, result: Any) -> None:
        self._result = result
        self._parsed: list[Any] = []

    def __call__(self, max_records: int) -> list[Any]:
        result, source = self._result, self._result._partition_records
        if not result.check_assignment(result._topic_partition) or not result.has_more():
            return []
        while len(self._parsed) < max_records and source._records.has_next():
            self._parsed += self._next_batch(source)
        taken, self._parsed = self._parsed[:max_records], self._parsed[max_records:]
        if self._parsed:
            source.next_fetch_offset = self._parsed[0].offset
        else:
            source.next_fetch_offset = self._end
        result._update_position()
        if not self._parsed and not source._records.has_next():
            result._partition_records = None
        return taken

    def _next_batch(self, source: Any) -> list[Any]:
        batch = source._records.next_batch()
        if source._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"invalid CRC in {source._tp}")
        self._end = batch.next_offset
        if batch.is_control_batch:
            return []
        records = list(batch)
        # A fetch returns whole batches: the first one may begin before the offset that was asked for.
        return records if batch.base_offset >= source.next_fetch_offset else [r for r in records if r.offset >= source.next_fetch_offset]


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread that talks to the broker."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # A partition that has just been drained waits for the fetch in flight: the wait bounds latency.
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._fetch_max_bytes = FETCH_MAX_BYTES
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        self._consumer._fetcher._records = LeanBuffer()
        self._watch = self.thread_loop.create_task(self._watch_client())

    async def _watch_client(self) -> None:
        """End the process when a background task of the client has ended: it would neither read nor answer any more.

        With a connection lost at the wrong moment, the client's task that looks for brokers has been seen to die silently.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            consumer = self._consumer
            tasks = {
                "metadata": consumer._client._sync_task,
                "group": consumer._coordinator._coordination_task,
                "fetch": consumer._fetcher._fetch_task,
            }
            for name, task in tasks.items():
                if task is not None and task.done():
                    reason = "cancelled" if task.cancelled() else task.exception()
                    end_process(f"the Kafka client's {name} task ended ({reason!r}); starting again mends it")

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        # The client would begin to send heartbeats when this is over; restoring a large state outlasts a session.
        self._consumer._coordinator._start_heartbeat_task()
        # Changelog partitions are assigned too; the store reads them itself, transactions respected.
        self._consumer.pause(*(tp for tp in self._consumer.assignment() if self.consumer._is_changelog_tp(tp)))
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_thread_stop(self) -> None:
        # aiokafka lets a static member stay until its session ends, as after a crash; a clean stop leaves at once.
        if self._consumer is not None:
            self._watch.cancel()
            self._consumer._coordinator._group_instance_id = None
        await super().on_thread_stop()

    async def leave_group(self) -> None:
        """Leave the group at once, in the middle of whatever it does; the process ends after this."""
        await self.call_thread(self._leave_group)

    async def _leave_group(self) -> None:
        coordinator = self._ensure_consumer()._coordinator
        await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        consumer = self._ensure_consumer()
        assignment = self.assignment()
        try:
            await consumer.commit({driver.ensure_aiokafka_TP(tp): (offset, "") for tp, offset in offsets.items() if tp in assignment})
        except KafkaError as error:
            # Group offsets only show lag, so neither a broker that is away nor a rebalance is a reason to stop.
            self.log.info("offsets not committed: %s", error)
            return False
        return True


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Yields runs, seeks to positions of the state, commits what is checkpointed."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109
        generation = self.app.consumer_generation_id
        # Faust waits a whole second for records, which every stop and every rebalance would wait for too.
        records, active = await self._wait_next_records(min(timeout, POLL_SECONDS))
        for tp, run in (records or {}).items():
            # What was fetched for an older assignment is fetched again after the seek to the state's position.
            if self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if self._is_changelog_tp(tp):
                for record in run:
                    yield tp, self._message(tp, record.offset, record, generation)
            elif active is None or tp in active or tp in self._buffered_partitions:
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                yield tp, self._message(tp, run[-1].offset, run, generation)

    def _message(self, tp: TP, offset: int, value: Any, generation: int) -> ConsumerMessage:
        # Without the current generation, streams drop a message silently.
        return ConsumerMessage(
            tp.topic, tp.partition, offset, 0.0, 0, None, None, value, None, 0, 0, TP(tp.topic, tp.partition), generation_id=generation
        )

    async def leave_group(self) -> None:
        """Leave the consumer group, so that nobody waits for a worker that refuses."""
        with suppress(KafkaError, TimeoutError):
            await asyncio.wait_for(self._thread.leave_group(), LEAVE_SECONDS)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        positions: Mapping[TP, int] = self.app.next_offsets()
        await self.seek_wait(positions)
        for tp, offset in positions.items():
            self._acked[tp].append(offset - 1)
        return positions

    def acknowledge(self, tp: TP, offset: int) -> None:
        """Mark everything up to `offset` as checkpointed; on the event loop."""
        with ack_lock:
            self._acked[tp].append(offset)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets between two messages are the records of the later one, not gaps."""

    def _new_offset(self, tp: TP) -> int | None:
        acked = self._acked[tp]
        highest = max(acked, default=None)
        acked.clear()
        return None if highest is None else highest + 1

    def _should_commit(self, tp: TP, offset: int) -> bool:
        return offset > 0

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's own watch reckons in messages acknowledged one by one; lag is a metric here."""


class Transport(driver.Transport):  # type: ignore[misc]
    """Registered as `batched`."""

    Consumer = Consumer
    driver_version = f"batched on {driver.Transport.driver_version}"


def input_partitions(assigned: Iterable[Any], topic: str) -> set[int]:
    """Return the partitions of a topic among those assigned."""
    return {tp.partition for tp in ensure_TPset(assigned) if tp.topic == topic}
