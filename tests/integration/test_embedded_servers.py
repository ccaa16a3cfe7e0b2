"""The embedded broker and registry as they really run: loopback only, durable, themselves."""

from __future__ import annotations

import dataclasses
import json

import psutil
import pytest
import requests
from confluent_kafka import Consumer, Producer, TopicPartition

from flowapp import topic_admin
from flowapp.embedded.kafka import Broker, answering_cluster_id
from flowapp.embedded.registry import Registry
from flowapp.embedded.service import start
from flowapp.errors import PortTaken, StackError
from flowapp.settings import Settings
from tests.conftest import NamespaceFactory, Running, free_port_offset, new_home

HTTP_SECONDS = 10


def listening(pid: int) -> set[tuple[str, int]]:
    return {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def test_both_listen_on_loopback_and_on_their_own_ports_only(broker: Running, registry: Running) -> None:
    for running in (broker, registry):
        assert listening(running.pid) == {("127.0.0.1", port) for port in running.service.ports.values()}


def test_a_broker_killed_and_started_again_has_its_cluster_id_and_every_acknowledged_record(
    broker: Running, namespace: NamespaceFactory
) -> None:
    settings = namespace()
    topic = f"{settings.namespace}.options.prints"
    outcomes: list[object] = []
    producer = Producer({"bootstrap.servers": settings.bootstrap, "acks": "all", "linger.ms": 5})
    for number in range(5_000):
        producer.produce(topic, str(number).encode(), partition=number % 4, on_delivery=lambda error, _: outcomes.append(error))
    assert producer.flush(30) == 0
    before = answering_cluster_id(settings.bootstrap)
    broker.kill()
    assert answering_cluster_id(settings.bootstrap, 1.0) is None
    broker.start()
    assert answering_cluster_id(settings.bootstrap) == before
    assert outcomes == [None] * 5_000
    assert read_all(settings, topic, 5_000) == {str(number) for number in range(5_000)}


def read_all(settings: Settings, topic: str, count: int) -> set[str]:
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": "reader", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(4)])
    found: set[str] = set()
    try:
        while len(found) < count:
            messages = consumer.consume(1000, timeout=20)
            assert messages, f"only {len(found)} of {count} records came back"
            found |= {message.value().decode() for message in messages if message.error() is None}
    finally:
        consumer.close()
    return found


def test_a_schema_acknowledged_just_before_a_kill_keeps_its_id(registry: Running, stack_settings: Settings) -> None:
    ids = {}
    for number in range(3):
        schema = json.dumps({"type": "record", "name": f"Kill{number}", "fields": [{"name": "x", "type": "long"}]})
        url = f"{stack_settings.registry_url}/subjects/kill-{number}/versions"
        ids[number] = requests.post(url, json={"schema": schema}, timeout=HTTP_SECONDS).json()["id"]
    registry.kill()
    registry.start()
    for number, expected in ids.items():
        found = requests.get(f"{stack_settings.registry_url}/subjects/kill-{number}/versions/latest", timeout=HTTP_SECONDS)
        assert found.json()["id"] == expected


def test_a_second_broker_on_the_same_ports_is_refused_before_it_starts(broker: Running, stack_settings: Settings) -> None:
    assert isinstance(broker.service, Broker)
    other = dataclasses.replace(stack_settings, flow_home=str(stack_settings.home.parent / "other"))
    with pytest.raises(PortTaken, match="client port of the broker"):
        start(Broker(other, broker.service.jars), other.home)


def test_a_broker_that_is_another_cluster_is_not_taken_for_ours(broker: Running, stack_settings: Settings) -> None:
    assert isinstance(broker.service, Broker)
    other = dataclasses.replace(stack_settings, flow_home=str(stack_settings.home.parent / "another"))
    stranger = Broker(other, broker.service.jars)
    stranger.prepare()
    with pytest.raises(StackError, match="not this stack's"):
        stranger.is_ready()


def test_two_stacks_with_their_own_home_and_offset_run_side_by_side(
    broker: Running, registry: Running, stack_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert isinstance(broker.service, Broker)
    home = new_home(tmp_path_factory.mktemp("second") / "home")
    second = dataclasses.replace(stack_settings, flow_home=str(home), flow_port_offset=free_port_offset())
    child = start(Broker(second, broker.service.jars), home)
    try:
        ours, theirs = (topic_admin.cluster_id(topic_admin.admin(each), each) for each in (stack_settings, second))
        assert ours != theirs
    finally:
        assert child.stop() is True


def test_a_server_that_cannot_start_says_why(registry: Running, stack_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert isinstance(registry.service, Registry)
    home = new_home(tmp_path_factory.mktemp("broken") / "home")
    broken = Registry(dataclasses.replace(stack_settings, flow_home=str(home), flow_port_offset=free_port_offset()), home)
    with pytest.raises(StackError, match=r"the registry ended with exit code 1: .*quarkus-run\.jar.*log: .*registry\.log"):
        start(broken, home)
