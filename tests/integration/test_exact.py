"""Whatever is done to workers and broker, outputs and state are those of the fold run over the same log."""

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from flowapp import topics
from flowapp.bench.tape import write
from flowapp.core.fold import OFFSET, PARTITION, run
from flowapp.core.options import OptionsFold
from flowapp.records.codec import ROW, Codec
from flowapp.records.identity import canonical_hash
from flowapp.records.registry import HttpRegistry
from flowapp.settings import Settings
from flowapp.worker import SESSION_SECONDS
from tests.chaos.scenario import Chaos
from tests.conftest import Running
from tests.mocks.stack import Stack, Worker, namespaced, read_topic
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


def test_a_takeover_may_outlast_the_session(stack: Stack, tmp_path: Path) -> None:
    held = tmp_path / "held"
    feed(stack, 1_000)
    worker = stack.start(FLOW_HOLD_AT=f"options:before_transaction:1:1={held}")
    eventually(held.exists, 30)
    # As long as restoring some millions of rows takes; without heartbeats meanwhile the group would give it up.
    began = time.monotonic()
    eventually(lambda: time.monotonic() > began + SESSION_SECONDS + 2)
    held.unlink()
    stack.wait_applied()
    assert [line["msg"] for line in worker.lines()].count("[^-FlowApp]: Starting...") == 1
    assert sum("agent options owns" in line["msg"] for line in worker.lines()) == 1
    assert worker.stop() == 0
    for agent in BOTH:
        assert sum(stack.verify(agent).values()) == 0


def test_the_options_agent_redoes_what_a_kill_cost_it(
    stack_settings: Settings, broker: Running, registry: Running, schemas_of_session: None
) -> None:
    for stack in namespaced(stack_settings, options_signal_mode="all", checkpoint_ms=1000):
        settings = stack.settings
        write(settings, 60_000)
        worker = Worker(settings, 0, app="flowapp")
        stack.workers.append(worker)
        # Killed between its first outputs and its first checkpoint, it has to send them again.
        eventually(partial(stack.holds, topics.OPTIONS_SIGNAL), 60)
        worker.kill()
        worker = Worker(settings, 0, app="flowapp")
        stack.workers.append(worker)
        stack.wait_applied()
        eventually(worker.ready)
        assert worker.stop() == 0

        codec = Codec(HttpRegistry(settings.registry_url))
        expected = run(OptionsFold(settings), decoded(stack, codec, topics.OPTIONS_PRINTS))
        found = {topic: decoded(stack, codec, topic).drop(PARTITION, OFFSET) for topic in expected.outputs}
        wanted, got = canonical_hash(expected.outputs), canonical_hash(found)
        assert set(expected.outputs) == {topics.OPTIONS_SIGNAL, topics.FLOW_PACKETS}
        assert got.rows == wanted.rows
        assert got.duplicates > 0
        assert min(got.rows.values()) > 1_000
        assert got.conflicts == ()
        assert got.digest == wanted.digest
        for topic, key, size in ((topics.OPTIONS_SIGNAL, "trace_id", "size"), (topics.FLOW_PACKETS, "id", "total_size")):
            distinct = found[topic].unique([key, "revision"] if "revision" in found[topic].columns else [key])
            assert distinct[size].sum() == expected.outputs[topic][size].sum()


def decoded(stack: Stack, codec: Codec, topic: str) -> pl.DataFrame:
    """Return a whole topic as a frame with origins, contiguous by partition."""
    messages = sorted(read_topic(stack.settings, stack.topic(topic)), key=lambda m: (m.partition, m.offset))
    found = codec.decode(topic, [message.value for message in messages])
    assert found.rejects == []
    places = pl.DataFrame([(m.partition, m.offset) for m in messages], schema={PARTITION: pl.Int64, OFFSET: pl.Int64}, orient="row")
    return pl.concat([found.frame.drop(ROW), places], how="horizontal")


def test_all_at_once(stack: Stack, broker: Running) -> None:
    chaos = Chaos(stack, broker, seed=7)
    chaos.run(["join", "broker", "wipe"])
    assert chaos.kills == 2
    chaos.finish()
