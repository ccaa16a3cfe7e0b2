"""The init step on the real broker."""

from __future__ import annotations

import dataclasses

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from flowapp import topic_admin, topics
from flowapp.errors import BrokerUnavailable, NamespaceError
from flowapp.settings import Settings
from tests.conftest import NamespaceFactory, Running


@pytest.fixture
def fresh(broker: Running, stack_settings: Settings) -> Settings:
    return dataclasses.replace(stack_settings, flow_namespace="init_test")


def test_init_creates_every_topic_once_and_deleting_leaves_nothing(fresh: Settings) -> None:
    client = topic_admin.admin(fresh)
    created = topic_admin.create(fresh, client)
    assert created == sorted(plan.name for plan in topic_admin.plans(fresh))
    assert len(created) == len(topics.ALL) + len(topics.AGENT_INPUTS)
    assert topic_admin.create(fresh, client) == []
    counts = topic_admin.partition_counts(client, fresh)
    assert counts["init_test.options.prints"] == counts["init_test.ops.dead_letters"] == 4
    assert counts["init_test.ops.runs"] == counts["init_test.ops.user_state"] == 1
    assert counts["flowapp.init_test-options-state-changelog"] == 4
    assert topic_admin.delete(fresh, client) == created
    assert not set(created) & set(topic_admin.partition_counts(client, fresh))
    assert topic_admin.delete(fresh, client) == []


def test_topics_are_kept_by_bytes_and_never_by_time(fresh: Settings) -> None:
    settings = dataclasses.replace(fresh, topic_retention_bytes=123_456_789)
    client = topic_admin.admin(settings)
    topic_admin.create(settings, client)
    try:
        prints = config_of(client, "init_test.options.prints")
        assert prints["retention.ms"] == "-1"
        assert prints["retention.bytes"] == "123456789"
        assert prints["message.timestamp.type"] == "CreateTime"
        assert prints["message.timestamp.after.max.ms"] == prints["message.timestamp.before.max.ms"] == "9223372036854775807"
        changelog = config_of(client, "flowapp.init_test-options-state-changelog")
        assert (changelog["cleanup.policy"], changelog["segment.ms"]) == ("compact", "600000")
        assert config_of(client, "init_test.ops.runs")["cleanup.policy"] == "compact"
    finally:
        topic_admin.delete(settings, client)


def test_records_of_2013_and_of_2030_are_accepted(fresh: Settings) -> None:
    topic_admin.create(fresh)
    try:
        failures: list[object] = []
        producer = Producer({"bootstrap.servers": fresh.bootstrap})
        for stamp_ms in (1_370_000_000_000, 1_900_000_000_000):
            producer.produce(
                "init_test.options.prints", b"x", partition=0, timestamp=stamp_ms, on_delivery=lambda error, _: failures.append(error)
            )
        assert producer.flush(20) == 0
        assert failures == [None, None]
    finally:
        topic_admin.delete(fresh)


def test_another_partition_count_is_refused_by_name(namespace: NamespaceFactory) -> None:
    settings = namespace()
    other = dataclasses.replace(settings, topic_partitions=2)
    with pytest.raises(NamespaceError, match=rf"TOPIC_PARTITIONS was 2.*{settings.namespace}\.options\.prints has 4.*flow reset"):
        topic_admin.create(other)


def test_nothing_creates_a_topic_by_asking_for_it(fresh: Settings) -> None:
    client = topic_admin.admin(fresh)
    producer = Producer({"bootstrap.servers": fresh.bootstrap, "message.timeout.ms": 1500, "allow.auto.create.topics": True})
    errors: list[object] = []
    producer.produce("init_test.never", b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(20)
    assert errors != [None]
    assert "init_test.never" not in topic_admin.partition_counts(client, fresh)


def test_a_broker_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_admin, "METADATA_TIMEOUT_SECONDS", 1.0)
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:1")
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        topic_admin.create(settings)


def config_of(client: AdminClient, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = client.describe_configs([resource])[resource].result()
    return {name: entry.value for name, entry in entries.items()}
