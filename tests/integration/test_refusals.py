"""What makes a worker refuse to start, in one line that says what to do, and the ways out."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from flowapp import state_command, topic_admin, topics
from flowapp.errors import StateError
from flowapp.settings import Settings
from tests.conftest import Running
from tests.mocks.stack import REPOSITORY, Stack, Worker, namespaced
from tests.mocks.tally import POISON, encode
from tests.waiting import eventually

REFUSED = 2


@pytest.fixture
def stack(stack_settings: Settings, broker: Running, registry: Running, schemas_of_session: None) -> Iterator[Stack]:
    yield from namespaced(stack_settings)


def refusal(worker: Worker) -> str:
    """Return the one line with which a worker refused."""
    assert worker.wait() == REFUSED, [line["msg"] for line in worker.lines()]
    lines = [line["msg"] for line in worker.lines() if line["level"] == "CRITICAL"]
    # Several partitions may find the same thing before the process ends.
    assert lines
    assert "\n" not in lines[0]
    return str(lines[0])


def settled(stack: Stack, *, clean: bool = True) -> None:
    """Let a worker apply some records, then stop cleanly or die."""
    stack.feed(2_000)
    worker = stack.start()
    eventually(worker.ready)
    stack.wait_applied()
    if clean:
        assert worker.stop() == 0
    else:
        worker.kill()


def group_empty(stack: Stack) -> bool:
    return not topic_admin.active_members(topic_admin.admin(stack.settings), stack.settings.namespace)


def test_changed_settings_after_an_unclean_stop_are_refused_until_accepted(stack: Stack) -> None:
    settled(stack, clean=False)
    text = refusal(stack.start(MOCK_CONFIG="b"))
    assert "rules or settings changed since an unclean stop of agent options" in text
    assert "flow state accept-config --agent options" in text
    # A worker that refuses leaves the group, so the way out is open at once.
    assert group_empty(stack)
    state_command.accept_config(stack.settings, "options")
    worker = stack.start(MOCK_CONFIG="b")
    eventually(worker.ready)
    assert worker.stop() == 0
    assert {position.config for position in stack.positions() if position} == {"b"}
    # After a clean stop a change needs no consent; it is recorded where it begins to hold.
    worker = stack.start(MOCK_CONFIG="c")
    eventually(worker.ready)
    assert worker.stop() == 0
    rows = stack.configurations()
    ends = stack.ends()
    for partition, end in enumerate(ends):
        assert [(row["from_offset"], row["config"]) for row in rows[partition]] == [(0, "a"), (end, "c")]


def test_state_of_another_version_is_refused_until_rebuilt(stack: Stack) -> None:
    settled(stack)
    text = refusal(stack.start(MOCK_VERSION="2"))
    assert "state of agent options has version 1, this program writes version 2" in text
    assert group_empty(stack)
    before = stack.outputs()
    assert run_state(stack, "rebuild", "--agent", "options").returncode == 0
    worker = stack.start(MOCK_VERSION="2")
    stack.feed(100)
    stack.wait_applied()
    eventually(worker.ready)
    assert worker.stop() == 0
    repeats = stack.verify()
    assert sum(repeats.values()) == before
    assert {position.version for position in stack.positions() if position} == {2}


def test_a_position_below_the_start_of_the_log_names_the_lost_range(stack: Stack) -> None:
    settled(stack)
    ends = stack.ends()
    stack.feed(2_000)
    admin = topic_admin.admin(stack.settings)
    name = stack.topic(topics.OPTIONS_PRINTS)
    lost = {TopicPartition(name, 1, ends[1] + 10)}
    for future in admin.delete_records(list(lost)).values():
        future.result()
    assert f"offsets {ends[1]} to {ends[1] + 9} are lost, the log begins at {ends[1] + 10}" in refusal(stack.start())


def test_topics_wiped_and_the_disk_kept_is_refused(stack: Stack) -> None:
    settled(stack)
    admin = topic_admin.admin(stack.settings)
    wiped = [stack.topic(topics.OPTIONS_PRINTS), topics.changelog_name(stack.settings.namespace, "options")]
    for future in admin.delete_topics(wiped).values():
        future.result()
    topic_admin.wait_for(admin, stack.settings, wiped, present=False)
    topic_admin.create(stack.settings)
    assert "topics were wiped and the state directory kept" in refusal(stack.start())
    # With the raw topic gone alone, state that the broker holds gives it away.
    stack.wipe_disk()
    worker = stack.start()
    eventually(worker.ready)
    assert worker.stop() == 0


def test_a_raw_topic_that_was_made_anew_is_refused(stack: Stack) -> None:
    settled(stack)
    admin = topic_admin.admin(stack.settings)
    wiped = [stack.topic(topics.OPTIONS_PRINTS)]
    for future in admin.delete_topics(wiped).values():
        future.result()
    topic_admin.wait_for(admin, stack.settings, wiped, present=False)
    topic_admin.create(stack.settings)
    assert "the topic was wiped or recreated under kept state" in refusal(stack.start())


def test_missing_topics_another_partition_count_and_another_broker_are_refused(stack: Stack) -> None:
    elsewhere = Worker(stack.settings, 0, FLOW_NAMESPACE="nowhere")
    assert "create its topics with: flow init" in refusal(elsewhere)
    assert "TOPIC_PARTITIONS was 5" in refusal(stack.start(TOPIC_PARTITIONS="5"))
    settled(stack)
    pins = stack.settings.home / stack.settings.namespace / "pins.json"
    pins.write_text(pins.read_text().replace('"cluster_id": "', '"cluster_id": "other-'))
    assert "was made on Kafka cluster other-" in refusal(stack.start())


def test_a_second_worker_with_the_same_number_fails_on_the_lock(stack: Stack) -> None:
    worker = stack.start(0)
    eventually(worker.ready)
    text = refusal(stack.start(0))
    assert f"is in use by process {worker.pid}" in text
    assert "WORKER_ID" in text
    with pytest.raises(StateError, match=r"in use by 1 worker\(s\)"):
        state_command.rebuild(stack.settings, "options")
    assert worker.stop() == 0


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "faust", "-q", "-A", "flowapp", "worker", "-L", "uvloop"]
    environ = {**os.environ, "CHECKPOINT_MS": "soon", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == REFUSED
    assert done.stderr.count("\n") == 1
    assert "CHECKPOINT_MS was 'soon'; allowed: a whole number >= 10" in done.stderr


def test_bad_records_become_dead_letters_and_the_stream_goes_on(stack: Stack) -> None:
    stack.feed(2_000, bad=[b"", b"garbage", encode(1, -5, 1), encode(2, POISON, 2)])
    worker = stack.start()
    eventually(worker.ready)
    stack.wait_applied()
    assert worker.stop() == 0
    stack.verify()
    letters = stack.dead_letters()
    assert len(letters) == 4
    assert set(letters.values()) == {1}


def run_state(stack: Stack, *words: str) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, **stack.settings.environment(), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "flowapp.cli", "state", *words]
    return subprocess.run(command, cwd=stack.settings.home, env=environ, capture_output=True, text=True, check=False)


def test_show_tells_where_each_partition_stands(stack: Stack) -> None:
    settled(stack)
    shutil.rmtree(stack.settings.home / stack.settings.namespace / "state")
    done = run_state(stack, "show", "--agent", "options")
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["agent", "partition", "offset", "log", "behind", "rules", "config", "version", "clean", "rows"]
    rows = stack.state()
    for partition, (line, end) in enumerate(zip(lines, stack.ends(), strict=True)):
        expected = ["options", str(partition), str(end - 1), f"0..{end}", "0", "mock", "a", "1", "yes", str(len(rows[partition]) - 1)]
        assert line.split() == expected
