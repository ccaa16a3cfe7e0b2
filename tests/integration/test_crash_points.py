"""A crash at each step of a checkpoint, and what the next start makes of it."""

import signal
from collections.abc import Iterator

import pytest

from flowapp import topics
from flowapp.settings import Settings
from tests.conftest import Running
from tests.mocks.stack import Stack, namespaced, read_topic
from tests.waiting import eventually

PARTITION = 1


@pytest.fixture
def stack(stack_settings: Settings, broker: Running, registry: Running, schemas_of_session: None) -> Iterator[Stack]:
    yield from namespaced(stack_settings)


def crash(stack: Stack, point: str) -> int:
    """Let a worker crash at the third checkpoint of a partition; return the raw offset stored by then."""
    stack.feed(1_000)
    worker = stack.start(FLOW_CRASH_AT=f"options:{point}:{PARTITION}:3")
    stack.feed_until(lambda: worker.process.poll() is not None)
    assert worker.wait() == -signal.SIGKILL
    position = stack.positions()[PARTITION]
    assert position is not None
    return position.offset


def restart(stack: Stack) -> dict[str, int]:
    """Start again, let everything be applied, compare; return the equal repeats by topic."""
    worker = stack.start()
    stack.wait_applied()
    eventually(worker.ready)
    assert worker.stop() == 0
    return stack.verify()


@pytest.mark.parametrize("point", ["before_outputs", "before_transaction"])
def test_before_the_transaction_the_batch_is_redone_with_the_same_bytes(stack: Stack, point: str) -> None:
    stored = crash(stack, point)
    repeats = restart(stack)
    assert stored >= 0
    # Nothing but equal bytes is repeated, which `verify` checks; outputs that were delivered are.
    assert point == "before_outputs" or sum(repeats.values()) > 0


def test_inside_the_transaction_the_next_owner_aborts_it(stack: Stack) -> None:
    stored = crash(stack, "inside_transaction")
    changelog = topics.changelog_name(stack.settings.namespace, "options")
    written = [message.offset for message in read_topic(stack.settings, changelog) if message.partition == PARTITION]
    committed = [message.offset for message in read_topic(stack.settings, changelog, committed=True) if message.partition == PARTITION]
    assert len(written) > len(committed), "no open transaction was left behind"
    restart(stack)
    assert stored < (stack.positions()[PARTITION] or pytest.fail("no position")).offset
    still = [message.offset for message in read_topic(stack.settings, changelog, committed=True) if message.partition == PARTITION]
    assert not set(written[len(committed) :]) & set(still), "rows of an aborted transaction are read"


def test_after_the_commit_and_before_the_disk_the_tail_of_the_changelog_is_read(stack: Stack) -> None:
    stored = crash(stack, "after_commit")
    worker = stack.start()
    eventually(worker.ready)
    restored = next(line["context"]["rows"] for line in worker.lines() if "partitions" in line["context"])
    assert restored > 0
    assert worker.stop() == 0
    # Only the tail was read, not the whole.
    assert restored < sum(map(len, stack.state().values()))
    assert stored < stack.ends()[PARTITION]
    restart(stack)


def test_after_the_disk_and_before_the_group_commit_records_are_not_applied_twice(stack: Stack) -> None:
    stored = crash(stack, "after_disk")
    assert stack.committed()[PARTITION] <= stored
    restart(stack)


def test_a_disk_more_than_one_checkpoint_behind_is_restored_whole(stack: Stack) -> None:
    stack.feed(1_000)
    worker = stack.start(0)
    eventually(worker.ready)
    stack.wait_applied()
    assert worker.stop() == 0
    # Another worker goes on, and deletes rows that the first one's disk still holds.
    other = stack.start(1)
    eventually(other.ready)
    stack.feed(1_000)
    stack.wait_applied()
    assert other.stop() == 0
    worker = stack.start(0)
    eventually(worker.ready)
    assert worker.said("more than one checkpoint behind")
    assert worker.stop() == 0
    stack.verify()
