import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from flowapp.engine.transport import LeanBuffer

TP = TopicPartition("t", 0)


def batches(sizes: list[int], compression: int = 3) -> bytes:
    out, offset = b"", 0
    for size in sizes:
        builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 20)
        for number in range(size):
            assert builder.append(number, 1000 + offset + number, b"k", b"%d" % (offset + number), []) is not None
        batch = builder.build()
        batch[0:8] = offset.to_bytes(8, "big")
        out += bytes(batch)
        offset += size
    return out


class Fetched:
    """One fetch of a partition, as the fetcher buffers it."""

    def __init__(self, data: bytes, start: int, lean: bool, check_crcs: bool = True) -> None:
        self.position = start
        state = SimpleNamespace(paused=False, position=start, consumed_to=self._consume)
        self.state = state
        assignment = SimpleNamespace(active=True, state_value=lambda tp: state)
        records = PartitionRecords(TP, MemoryRecords(data), [], start, None, None, check_crcs, 0)
        self.result = FetchResult(TP, assignment=assignment, partition_records=records, backoff=0)
        buffer: dict[Any, Any] = LeanBuffer() if lean else {}
        buffer[TP] = self.result

    def _consume(self, position: int) -> None:
        self.state.position = position

    def drain(self, bounds: list[int]) -> list[list[tuple[int, int, bytes, bytes]]]:
        out = []
        for bound in bounds:
            taken = self.result.getall(bound)
            out.append([(r.offset, r.timestamp, r.key, r.value) for r in taken])
            if not self.result.has_more():
                break
        return out


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.data())
def test_lean_draining_yields_what_the_fetcher_would(sizes: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, sizes[0] - 1))
    bounds = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=40))
    plain, lean = Fetched(batches(sizes), start, False), Fetched(batches(sizes), start, True)
    wanted, found = plain.drain(bounds), lean.drain(bounds)
    assert [row for part in found for row in part] == [row for part in wanted for row in part]
    assert all(len(part) <= bound for part, bound in zip(found, bounds, strict=False))
    assert lean.state.position == plain.state.position


def test_after_a_seek_buffered_records_are_dropped() -> None:
    fetched = Fetched(batches([5, 5]), 0, True)
    assert len(fetched.result.getall(3)) == 3
    fetched.state.position = 7
    assert fetched.result.getall(3) == []


def test_corrupt_bytes_are_noticed() -> None:
    data = bytearray(batches([5]))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        Fetched(bytes(data), 0, True).result.getall(10)


def test_the_core_does_not_load_faust_and_app_is_made_only_when_asked_for() -> None:
    script = "import sys, flowapp, flowapp.core.fold, flowapp.engine.runner; print('faust' in sys.modules, flowapp.__version__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0.1.0"]
