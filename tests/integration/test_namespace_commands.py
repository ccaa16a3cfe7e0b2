"""`flow init`, `flow status` and `flow reset` against the real broker and registry."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from flowapp import namespace_command, status, topic_admin, topics
from flowapp.embedded.locks import FileLock
from flowapp.errors import NamespaceError
from flowapp.settings import Settings
from tests.conftest import NamespaceFactory, Running
from tests.waiting import eventually


def flow(settings: Settings, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **settings.environment(complete=True)}
    command = [sys.executable, "-m", "flowapp.cli", *arguments]
    return subprocess.run(command, env=environment, input=answer, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def settings(broker: Running, registry: Running, stack_settings: Settings) -> Iterator[Settings]:
    named = dataclasses.replace(stack_settings, flow_namespace="commands")
    yield named
    topic_admin.delete(named)


def test_init_may_be_run_again_and_says_what_it_did(settings: Settings) -> None:
    first, second = flow(settings, "init"), flow(settings, "init")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout.startswith("namespace commands: 17 topics created, 4 partitions; ")
    assert second.stdout.startswith("namespace commands: topics were there, 4 partitions; ")


def test_reset_deletes_topics_offsets_and_local_state_after_asking(settings: Settings) -> None:
    topic_admin.create(settings)
    state = settings.home / "commands" / "state" / "0"
    state.mkdir(parents=True)
    refused = flow(settings, "reset", "commands", answer="comands\n")
    assert (refused.returncode, refused.stderr) == (1, "nothing was deleted\n")
    assert state.exists()
    done = flow(settings, "reset", "commands", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("namespace commands: 17 topics")
    assert not state.exists()
    assert not [name for name in topic_admin.partition_counts(topic_admin.admin(settings), settings) if "commands" in name]


def test_reset_refuses_a_namespace_that_a_worker_is_in(namespace: NamespaceFactory) -> None:
    settings = namespace()
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": topics.app_id(settings.namespace), "client.id": "worker-7"})
    try:
        consumer.subscribe([topics.full_name(settings.namespace, topics.OPTIONS_PRINTS)])
        eventually(lambda: consumer.poll(0.1) is not None or consumer.assignment())
        with pytest.raises(NamespaceError, match=r"in use by 1 worker.*worker-7"):
            namespace_command.refuse_if_used(settings)
    finally:
        consumer.close()
    namespace_command.refuse_if_used(settings)


def test_reset_refuses_a_namespace_whose_edge_runs(namespace: NamespaceFactory) -> None:
    settings = namespace()
    with FileLock(settings.home / settings.namespace / "edge" / "options-0.lock") as lock:
        assert lock.acquire()
        with pytest.raises(NamespaceError, match=r"options-0\.lock held by a running process"):
            namespace_command.refuse_if_used(settings)
    namespace_command.refuse_if_used(settings)


def test_reset_wants_a_name_that_is_one(settings: Settings) -> None:
    done = flow(settings, "reset", "../home", "--yes")
    assert done.returncode == 2
    assert done.stderr.startswith("flow: NAMESPACE was '../home'; allowed: ")


def test_status_tells_lag_per_agent_and_partition(namespace: NamespaceFactory) -> None:
    settings = namespace()
    name = topics.full_name(settings.namespace, topics.OPTIONS_PRINTS)
    producer = Producer({"bootstrap.servers": settings.bootstrap})
    for _ in range(10):
        producer.produce(name, b"x", partition=2)
    assert producer.flush(20) == 0
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": topics.app_id(settings.namespace)})
    consumer.commit(offsets=[TopicPartition(name, 2, 4)], asynchronous=False)
    consumer.close()
    found = status.read(settings)
    assert {(lag.agent, lag.partition): (lag.committed, lag.end, lag.lag) for lag in found.lags if lag.end} == {("options", 2): (4, 10, 6)}
    assert len(found.lags) == 8
    assert found.healthy


def test_status_as_json_has_every_part_and_a_rate_for_every_topic(namespace: NamespaceFactory) -> None:
    settings = namespace()
    done = flow(settings, "status", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [part["name"] for part in told["parts"]] == ["broker", "registry", "worker", "watch", "edge"]
    assert len(told["rates"]) == len(topics.ALL) + len(topics.AGENT_INPUTS)
    text = flow(settings, "status").stdout
    assert text.startswith(f"namespace {settings.namespace} on {settings.bootstrap}")
    assert "no records came in the last second" in text


def test_status_without_a_broker_says_so_and_fails(stack_settings: Settings) -> None:
    nowhere = dataclasses.replace(stack_settings, kafka_bootstrap_servers="127.0.0.1:1", schema_registry_url="http://127.0.0.1:1")
    done = flow(nowhere, "status")
    assert done.returncode == 1
    assert "broker    not answering" in done.stdout
