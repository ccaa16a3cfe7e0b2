"""`flow status`: each part of the stack, lag per agent and partition, rates."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from flowapp import topic_admin, topics
from flowapp.embedded import pins, registry, runfile
from flowapp.embedded.download import Downloader
from flowapp.embedded.kafka import answering_cluster_id
from flowapp.embedded.progress import LineProgress
from flowapp.errors import BrokerUnavailable
from flowapp.settings import BROKER_PORT, REGISTRY_PORT, Settings

SAMPLE_SECONDS = 1.0
BROKER_TIMEOUT_SECONDS = 10.0
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class PartStatus:
    """One part: `running`, `external`, `not answering` or `stopped`."""

    name: str
    state: str
    pid: int | None = None
    ports: dict[str, int] = field(default_factory=dict)
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Lag:
    """How far an agent is behind on a partition; `committed` is None before its first commit."""

    agent: str
    partition: int
    committed: int | None
    end: int
    lag: int


@dataclass(frozen=True)
class Status:
    """Everything `flow status` shows."""

    home: str
    namespace: str
    bootstrap: str
    registry_url: str
    parts: list[PartStatus]
    lags: list[Lag]
    rates: dict[str, float]
    members: list[str]

    @property
    def healthy(self) -> bool:
        """Whether broker and registry answer."""
        return all(part.state in ("running", "external") for part in self.parts if part.name in ("broker", "registry"))


def add_parser(subparsers: Any) -> None:
    """Add `status` to the commands of `flow`."""
    parser = subparsers.add_parser("status", help="show each part of the stack, lag per agent and partition, and rates")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--verify", action="store_true", help="also hash every cached component; a damaged one is fetched anew at the next start"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the status; exit code 1 when broker or registry does not answer, or a component is damaged."""
    settings = Settings.load()
    wrong = verify_components(settings) if args.verify else []
    status = read(settings)
    print(json.dumps(asdict(status)) if args.json else to_text(status))
    for name in wrong:
        print(f"damaged and discarded, fetched anew at the next start: {name}", file=sys.stderr)
    return 0 if status.healthy and not wrong else 1


def verify_components(settings: Settings) -> list[str]:
    """Hash every cached file and discard components that are damaged; return the files that were."""
    downloader = Downloader(settings.home, LineProgress(sys.stderr))
    return [f"{component.folder_name}/{name}" for component in pins.ALL for name in downloader.repair(component)]


def read(settings: Settings) -> Status:
    """Look at processes, ports and the broker."""
    parts = part_states(settings)
    lags: list[Lag] = []
    rates: dict[str, float] = {}
    members: list[str] = []
    if parts[0].state in ("running", "external"):
        client = topic_admin.admin(settings)
        names = [plan.name for plan in topic_admin.plans(settings)]
        existing = topic_admin.partition_counts(client, settings)
        partitions = [TopicPartition(name, number) for name in names for number in range(existing.get(name, 0))]
        rates, ends = sample(client, partitions)
        lags = lag_of_agents(settings, ends)
        members = topic_admin.active_members(client, settings.namespace)
    return Status(str(settings.home), settings.namespace, settings.bootstrap, settings.registry_url, parts, lags, rates, members)


def part_states(settings: Settings) -> list[PartStatus]:
    """Return broker and registry, then the programs that a supervisor runs here."""
    known = {process.name: process for process in runfile.read(settings.home, runfile.INFRA)}
    broker_answers = answering_cluster_id(settings.bootstrap) is not None
    registry_answers = registry.answers(settings.registry_url)
    parts = [
        _server("broker", known, broker_answers, settings.embedded_broker, settings.port(BROKER_PORT)),
        _server("registry", known, registry_answers, settings.embedded_registry, settings.port(REGISTRY_PORT)),
    ]
    programs = {process.name: process for process in runfile.read(settings.home, runfile.services_scope(settings.namespace))}
    for name in ("worker", "watch", "edge"):
        parts.append(_running(programs[name]) if name in programs else PartStatus(name, "stopped"))
    return parts


def _running(process: runfile.Process) -> PartStatus:
    return PartStatus(process.name, "running", process.pid, dict(process.ports), process.memory_bytes())


def _server(name: str, known: dict[str, runfile.Process], answers: bool, embedded: bool, port: int) -> PartStatus:
    if not embedded:
        return PartStatus(name, "external" if answers else "not answering")
    if name in known:
        part = _running(known[name])
        return part if answers else PartStatus(name, "not answering", part.pid, part.ports, part.memory_bytes)
    # Run by something else than `flow up`, such as a test or another FLOW_HOME on the same port.
    return PartStatus(name, "external" if answers else "stopped", ports={"client port": port})


def sample(client: AdminClient, partitions: Sequence[TopicPartition]) -> tuple[dict[str, float], dict[tuple[str, int], int]]:
    """Return records a second per topic over a short while, and the end offsets after it."""
    before, begun = end_offsets(client, partitions), time.monotonic()
    if before:
        time.sleep(SAMPLE_SECONDS)
    after, took = end_offsets(client, partitions), time.monotonic() - begun
    rates: dict[str, float] = {}
    for key, end in after.items():
        rates[key[0]] = rates.get(key[0], 0.0) + (end - before.get(key, end)) / took
    return {name: round(rate, 1) for name, rate in rates.items()}, after


def end_offsets(client: AdminClient, partitions: Sequence[TopicPartition]) -> dict[tuple[str, int], int]:
    """Return the end of every partition.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    if not partitions:
        return {}
    futures = client.list_offsets({partition: OffsetSpec.latest() for partition in partitions}, request_timeout=BROKER_TIMEOUT_SECONDS)
    try:
        return {(partition.topic, partition.partition): future.result().offset for partition, future in futures.items()}
    except KafkaException as error:
        raise BrokerUnavailable(f"end offsets could not be read: {error.args[0].str()}") from error


def lag_of_agents(settings: Settings, ends: dict[tuple[str, int], int]) -> list[Lag]:
    """Compare what each agent committed with the ends of its input.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    agents = {topics.full_name(settings.namespace, topic): agent for agent, topic in topics.AGENT_INPUTS.items()}
    wanted = [TopicPartition(*key) for key in sorted(ends) if key[0] in agents]
    if not wanted:
        return []
    consumer = Consumer({"bootstrap.servers": settings.bootstrap, "group.id": topics.app_id(settings.namespace), "log_level": 0})
    try:
        committed = consumer.committed(wanted, timeout=BROKER_TIMEOUT_SECONDS)
    except KafkaException as error:
        raise BrokerUnavailable(f"committed offsets could not be read: {error.args[0].str()}") from error
    finally:
        consumer.close()
    return [_lag(agents[place.topic], place, ends[place.topic, place.partition]) for place in committed]


def _lag(agent: str, place: TopicPartition, end: int) -> Lag:
    committed = place.offset if place.offset >= 0 else None
    return Lag(agent, place.partition, committed, end, end - (committed or 0))


def to_text(status: Status) -> str:
    """Write the status for a person."""
    head = f"namespace {status.namespace} on {status.bootstrap}, schemas on {status.registry_url}, data in {status.home}"
    blocks = [head, columns([_part_row(part) for part in status.parts])]
    if status.lags:
        rows: list[tuple[str, ...]] = [("agent", "partition", "committed", "end", "lag")]
        rows += [row for agent in topics.AGENT_INPUTS for row in _lag_rows([lag for lag in status.lags if lag.agent == agent])]
        blocks.append(columns(rows))
    moving = [(name, f"{rate:,.0f}/s") for name, rate in status.rates.items() if rate > 0]
    if status.rates:
        blocks.append(columns(moving) if moving else "no records came in the last second")
    if status.members:
        blocks.append("workers: " + ", ".join(status.members))
    return "\n\n".join(blocks)


def _part_row(part: PartStatus) -> tuple[str, ...]:
    ports = ", ".join(f"{role} {port}" for role, port in part.ports.items())
    memory = "" if part.memory_bytes is None else f"{part.memory_bytes / MEBIBYTE:.0f} MB"
    return part.name, part.state, "" if part.pid is None else f"pid {part.pid}", memory, ports


def _lag_rows(lags: Sequence[Lag]) -> list[tuple[str, ...]]:
    """Return a row a partition; one for all while the agent has not committed anything."""
    if lags and all(lag.committed is None for lag in lags):
        return [(lags[0].agent, "all", "none yet", _number(sum(lag.end for lag in lags)), _number(sum(lag.lag for lag in lags)))]
    return [(lag.agent, str(lag.partition), _number(lag.committed), _number(lag.end), _number(lag.lag)) for lag in lags]


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Align rows under each other."""
    table = list(rows)
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)
