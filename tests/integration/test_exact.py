"""Whatever is done to workers and broker, outputs and state are those of the fold run over the same log."""

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flowapp.settings import Settings
from tests.chaos.scenario import Chaos
from tests.conftest import Running
from tests.mocks.stack import Stack, namespaced
from tests.waiting import eventually

BOTH = ("options", "equities")


@pytest.fixture
def stack(stack_settings: Settings, broker: Running, registry: Running, schemas_of_session: None) -> Iterator[Stack]:
    yield from namespaced(stack_settings, BOTH)


def feed(stack: Stack, records: int) -> None:
    for agent in stack.agents:
        stack.feed(records, agent)


def test_killed_at_random_points_and_its_disk_wiped_a_worker_redoes_what_was_lost(stack: Stack) -> None:
    feed(stack, 5_000)
    for kill in range(3):
        worker = stack.start()
        eventually(partial(worker.ready, len(BOTH)), 30)
        stack.feed_until_moved()
        feed(stack, 4_000)
        worker.kill()
        if kill == 1:
            stack.wipe_disk()
    worker = stack.start()
    eventually(partial(worker.ready, len(BOTH)), 30)
    stack.wait_applied()
    assert worker.stop() == 0
    for agent in BOTH:
        stack.verify(agent)
        assert all(position is not None and position.clean for position in stack.positions(agent))


def test_a_paused_worker_is_replaced_and_what_it_then_tries_is_refused(stack: Stack, tmp_path: Path) -> None:
    held = tmp_path / "held"
    feed(stack, 2_000)
    first = stack.start(0, FLOW_HOLD_AT=f"options:before_transaction:1:3={held}")
    eventually(lambda: first.ready(len(BOTH)), 30)
    stack.feed_until(held.exists)
    feed(stack, 2_000)
    first.signal(signal.SIGSTOP)
    second = stack.start(1)
    eventually(lambda: second.ready(len(BOTH)), 60)
    assert second.owned("options") == list(range(stack.settings.topic_partitions))
    feed(stack, 2_000)
    stack.wait_applied()
    held.unlink()
    first.signal(signal.SIGCONT)
    assert first.wait() == 1
    assert first.said("the broker refused a checkpoint"), [line["msg"] for line in first.lines()][-5:]

    # It comes back beside the other one, which then leaves.
    first = stack.start(0)
    eventually(lambda: first.ready(len(BOTH)) and second.ready(2 * len(BOTH)), 60)
    feed(stack, 2_000)
    stack.wait_applied()
    assert sorted(first.owned("options") + second.owned("options")) == list(range(stack.settings.topic_partitions))
    assert second.stop() == 0
    feed(stack, 2_000)
    eventually(lambda: first.owned("options") == list(range(stack.settings.topic_partitions)), 60)
    stack.wait_applied()
    for agent in BOTH:
        stack.verify(agent)


def test_all_at_once(stack: Stack, broker: Running) -> None:
    chaos = Chaos(stack, broker, seed=7)
    chaos.run(["join", "broker", "wipe"])
    assert chaos.kills == 2
    chaos.finish()
