"""Topics of a namespace on the broker: created by an init step, checked, counted, deleted. Nothing else creates one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from flowapp import topics
from flowapp.errors import BrokerUnavailable, NamespaceError
from flowapp.settings import Settings

ADMIN_TIMEOUT_SECONDS = 30.0
METADATA_TIMEOUT_SECONDS = 10.0
GONE_SECONDS = 30.0
POLL_SECONDS = 0.1
# Event time of any year is accepted: by default a broker refuses what lies more than an hour ahead.
ANY_DISTANCE_MS = (1 << 63) - 1
CHANGELOG_SEGMENT_MS = 600_000
MESSAGE_MAX_BYTES = 8 << 20
COORDINATOR_MOVES = frozenset({KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS})
SINGLE_PARTITION = frozenset({topics.RUNS, topics.USER_STATE})


@dataclass(frozen=True)
class Plan:
    """A topic as it should be on the broker."""

    name: str
    partitions: int
    config: dict[str, str]


def admin(settings: Settings) -> AdminClient:
    """Return an admin client of the settings' broker."""
    return AdminClient({"bootstrap.servers": settings.bootstrap, "log_level": 0, "client.id": "flow-admin"})


def plans(settings: Settings) -> list[Plan]:
    """Return every topic of the settings' namespace, changelogs included."""
    found = []
    for topic in topics.ALL:
        partitions = 1 if topic.name in SINGLE_PARTITION else settings.topic_partitions
        config = _compacted() if topic.compacted else {"cleanup.policy": "delete", "retention.bytes": str(settings.topic_retention_bytes)}
        found.append(Plan(topics.full_name(settings.namespace, topic.name), partitions, _common(settings) | config))
    for agent in topics.AGENT_INPUTS:
        name = topics.changelog_name(settings.namespace, agent)
        found.append(Plan(name, settings.topic_partitions, _common(settings) | _compacted()))
    return found


def _common(settings: Settings) -> dict[str, str]:
    return {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": str(ANY_DISTANCE_MS),
        "message.timestamp.before.max.ms": str(ANY_DISTANCE_MS),
        "retention.ms": "-1",
        "compression.type": "producer",
        "max.message.bytes": str(MESSAGE_MAX_BYTES),
        "min.insync.replicas": str(max(1, settings.topic_replication - 1)),
    }


def _compacted() -> dict[str, str]:
    # The active segment is never compacted: without a short one a changelog keeps a week of history.
    return {"cleanup.policy": "compact", "segment.ms": str(CHANGELOG_SEGMENT_MS)}


def create(settings: Settings, client: AdminClient | None = None) -> list[str]:
    """Create what is missing of the namespace's topics and return their names; may be run again.

    Raises:
        BrokerUnavailable: the broker does not answer.
        NamespaceError: a topic exists with another number of partitions.
    """
    client = client or admin(settings)
    wanted = plans(settings)
    existing = partition_counts(client, settings)
    check_partitions(settings, wanted, existing)
    new = [
        NewTopic(plan.name, num_partitions=plan.partitions, replication_factor=settings.topic_replication, config=plan.config)
        for plan in wanted
        if plan.name not in existing
    ]
    if not new:
        return []
    created = []
    for name, future in client.create_topics(new, operation_timeout=ADMIN_TIMEOUT_SECONDS).items():
        if _succeeds(future, KafkaError.TOPIC_ALREADY_EXISTS, f"topic {name} could not be created"):
            created.append(name)
    wait_for(client, settings, [plan.name for plan in wanted])
    check_partitions(settings, wanted, partition_counts(client, settings))
    return sorted(created)


def check_partitions(settings: Settings, wanted: Iterable[Plan], existing: dict[str, int]) -> None:
    """Compare existing partition counts with the settings'.

    Raises:
        NamespaceError: names the topics that differ.
    """
    differing = [f"{plan.name} has {existing[plan.name]}" for plan in wanted if existing.get(plan.name, plan.partitions) != plan.partitions]
    if differing:
        named = ", ".join(differing[:3]) + (f" (and {len(differing) - 3} more)" if len(differing) > 3 else "")
        raise NamespaceError(
            f"TOPIC_PARTITIONS was {settings.topic_partitions}, but in namespace {settings.namespace} {named}; "
            f"set TOPIC_PARTITIONS as it was, choose another FLOW_NAMESPACE, or delete this one: flow reset {settings.namespace}"
        )


def partition_counts(client: AdminClient, settings: Settings) -> dict[str, int]:
    """Return the partition count of every topic on the broker.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    return {name: len(topic.partitions) for name, topic in _metadata(client, settings).topics.items() if topic.error is None}


def cluster_id(client: AdminClient, settings: Settings) -> str:
    """Return the id of the cluster.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    return str(_metadata(client, settings).cluster_id)


def _metadata(client: AdminClient, settings: Settings) -> Any:
    try:
        return client.list_topics(timeout=METADATA_TIMEOUT_SECONDS)
    except KafkaException as error:
        reason = error.args[0].str()
        raise BrokerUnavailable(f"no broker answered on {settings.bootstrap}: {reason}; start one with: flow up --only infra") from error


def wait_for(client: AdminClient, settings: Settings, names: Iterable[str], present: bool = True) -> None:
    """Wait until every named topic is there, or (`present` False) none is.

    Raises:
        BrokerUnavailable: it takes too long.
    """
    waiting, deadline = set(names), time.monotonic() + GONE_SECONDS
    while True:
        counts = partition_counts(client, settings)
        waiting = {name for name in waiting if (counts.get(name, 0) > 0) != present}
        if not waiting:
            return
        if time.monotonic() > deadline:
            state = "lacks" if present else "has"
            raise BrokerUnavailable(f"after {GONE_SECONDS:.0f} s the broker still {state} {', '.join(sorted(waiting))}")
        time.sleep(POLL_SECONDS)


def active_members(client: AdminClient, namespace: str) -> list[str]:
    """Return the members of the namespace's consumer group, as `client id on host`."""
    group = topics.app_id(namespace)

    def ask() -> Any:
        return client.describe_consumer_groups([group], request_timeout=ADMIN_TIMEOUT_SECONDS)[group]

    description = _answer(ask, KafkaError.GROUP_ID_NOT_FOUND, f"group {group} could not be read")
    return [] if description is None else [f"{member.client_id} on {member.host}" for member in description.members]


def delete(settings: Settings, client: AdminClient | None = None) -> list[str]:
    """Delete topics, changelogs and consumer group of the namespace; return the topics' names."""
    client = client or admin(settings)
    ours = {plan.name for plan in plans(settings)} & set(partition_counts(client, settings))
    if ours:
        for name, future in client.delete_topics(sorted(ours), operation_timeout=ADMIN_TIMEOUT_SECONDS).items():
            _succeeds(future, KafkaError.UNKNOWN_TOPIC_OR_PART, f"topic {name} could not be deleted")
        wait_for(client, settings, ours, present=False)
    group = topics.app_id(settings.namespace)

    def ask() -> Any:
        return client.delete_consumer_groups([group], request_timeout=ADMIN_TIMEOUT_SECONDS)[group]

    _answer(ask, KafkaError.GROUP_ID_NOT_FOUND, f"group {group} could not be deleted")
    return sorted(ours)


def _succeeds(future: Any, harmless: int, failure: str) -> bool:
    """Wait for an admin call; False for the harmless error, which means that somebody was quicker."""
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() == harmless:
            return False
        raise BrokerUnavailable(f"{failure}: {error.args[0].str()}") from error
    return True


def _answer(ask: Callable[[], Any], harmless: int, failure: str) -> Any:
    """Ask the group coordinator, again while it moves or loads; None for the harmless error."""
    deadline = time.monotonic() + ADMIN_TIMEOUT_SECONDS
    while True:
        try:
            return ask().result()
        except KafkaException as error:
            code = error.args[0].code()
            if code == harmless:
                return None
            if code not in COORDINATOR_MOVES or time.monotonic() > deadline:
                raise BrokerUnavailable(f"{failure}: {error.args[0].str()}") from error
        time.sleep(POLL_SECONDS)
