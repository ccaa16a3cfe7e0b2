"""Pins what the engine overrides or relies on in Faust and aiokafka: an upgrade that changes it forces a look."""

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from faust.app.base import App, BootStrategy
from faust.serializers.schemas import Schema
from faust.stores.base import Store
from faust.streams import Stream
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery
from faust.transport import consumer as base
from faust.transport.drivers import aiokafka as driver
from faust.worker import Worker

PINS: dict[Callable[..., Any], str] = {
    # overridden in engine.transport
    driver.AIOKafkaConsumerThread._create_worker_consumer: "c2701bfc3e6f",
    driver.AIOKafkaConsumerThread.on_start: "38b4e8bd1e10",
    driver.AIOKafkaConsumerThread._commit: "932852ce7a23",
    driver.AIOKafkaConsumerThread.seek_to_committed: "775ab0adc4b0",
    driver.AIOKafkaConsumerThread._seek_wait: "9d221e816d94",
    driver.AIOKafkaConsumerThread._fetch_records: "39a2c6c79fc1",
    driver.Consumer._new_consumer_thread: "0870ec53dea7",
    driver.Consumer._to_message: "7c24f6511b2f",
    driver.Consumer.verify_event_path: "a17e8f0610e1",
    base.ConsumerThread.on_partitions_assigned: "e59e8dda4372",
    base.ThreadDelegateConsumer.seek_to_committed: "f1d483b861b0",
    base.Consumer.getmany: "4b168d84882a",
    base.Consumer._wait_next_records: "6218e1969a63",
    base.Consumer.ack: "5fcf41cf4515",
    base.Consumer.perform_seek: "0e8c130ff4b0",
    base.Consumer.on_partitions_revoked: "d04b7ae72c6f",
    base.Consumer._add_gap: "4df2573ded7c",
    base.Consumer._new_offset: "1d2c7ea89a7a",
    base.Consumer._should_commit: "5ce941793947",
    base.Consumer._commit_offsets: "1a6979904118",
    base.Consumer._drain_messages: "44a2500309e8",
    Schema.loads_key: "9adc30303f20",
    Schema.loads_value: "61a4628b4e09",
    Stream.noack: "921a6f5c674d",
    fetcher.FetchResult.getall: "3e717e30de50",
    fetcher.FetchResult.check_assignment: "b5340df67e3f",
    fetcher.FetchResult._update_position: "83fb1473bf10",
    fetcher.PartitionRecords._unpack_records: "b803e6d46480",
    fetcher.Fetcher._proc_fetch_request: "59bf948fff47",
    fetcher.Fetcher.fetched_records: "be4348896b9b",
    # overridden in engine.store
    Store.on_rebalance: "a32fbe3c18de",
    TableManager.on_rebalance: "2d2c23a07bf5",
    TableManager.on_start: "365dd25fbc0e",
    Recovery.need_recovery: "fd1dc345b5d5",
    Recovery._build_highwaters: "91b4cc0d3724",
    Recovery._build_offsets: "27eec86be06c",
    Recovery._seek_offsets: "19598ca63d94",
    Recovery._restart_recovery.fun: "6bd8a8558a2d",
    Recovery.on_recovery_completed: "6ef567acf072",
    # overridden in worker
    App._on_partitions_revoked: "d5c895bbe57d",
    App._on_partitions_assigned: "de932b7927db",
    App.on_stop: "bfe5a933defb",
    App.on_first_start: "ec655d9c2234",
    BootStrategy._should_enable_web: "2b6c66a4448a",
    Worker._sentinel_task: "6e66058cf3e1",
    driver.AIOKafkaConsumerThread.on_thread_stop: "8dfc004e258b",
    Worker.on_setup_root_logger: "0d468284fb5c",
}


def pin_of(method: Callable[..., Any]) -> str:
    return hashlib.sha256(inspect.getsource(method).encode()).hexdigest()[:12]


@pytest.mark.parametrize(("method", "pin"), PINS.items(), ids=lambda value: getattr(value, "__qualname__", ""))
def test_upstream_is_as_it_was_when_the_engine_was_written(method: Callable[..., Any], pin: str) -> None:
    assert pin_of(method) == pin, f"{method.__qualname__} changed upstream: compare it with what the engine does in its place"
