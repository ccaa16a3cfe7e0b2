"""Facts about a time line, kept in its compacted topic `ops.runs`: pins, edge runs, configurations.

A namespace is one time line. Its pins say what every process that works in it must agree on; a process that differs
refuses to start. The pins are also kept in a file beside the local state, so that a broker that was wiped, or another
broker at the same address, is noticed although its own copy is gone.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from flowapp.errors import BrokerUnavailable, NamespaceError
from flowapp.run_log import BROKER_SECONDS, KafkaRunLog, MemoryRunLog, Row, RunLog, complete
from flowapp.settings import Settings

__all__ = ["KafkaRunLog", "MemoryRunLog", "Pins", "Row", "RunLog", "cluster_id", "config_row", "configs", "read_all", "write"]

PIN_KEY = "pin"


def read_all(settings: Settings) -> dict[str, Row]:
    """Return the newest Run row of every key of the namespace."""
    return KafkaRunLog(settings).read_all()


def write(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append Run rows; fields not given are null, `ts` is now."""
    KafkaRunLog(settings).write(rows)


def config_row(agent: str, partition: int, from_offset: int, rules: str, config: str, fold_version: int, clean: bool, settings: str) -> Row:
    """Build the row that says under which rules a partition is decided from an offset on; it is appended, never replaced."""
    key = f"config:{agent}:{partition}:{from_offset}"
    return complete(
        {
            "key": key, "kind": "config", "agent": agent, "partition": partition, "from_offset": from_offset, "rules": rules,
            "config": config, "fold_version": fold_version, "clean": clean, "settings": settings,
        }
    )  # fmt: skip


def configs(rows: Mapping[str, Row], agent: str, partition: int) -> list[Row]:
    """Return the configuration rows of a partition, by the offset from which they hold."""
    found = [row for row in rows.values() if row["kind"] == "config" and row["agent"] == agent and row["partition"] == partition]
    return sorted(found, key=lambda row: int(row["from_offset"]))


def placement_text(settings: Settings) -> str:
    """Return TOPIC_PLACEMENT in canonical form."""
    return ",".join(f"{name}={partition}" for name, partition in settings.topic_placement)


def _rate_text(settings: Settings) -> str:
    """Return what the asked rate adds to the profiles: another rate is another market."""
    rate = settings.synthetic_rate or (1000 / settings.emit_interval_ms if settings.emit_interval_ms else None)
    return "" if rate is None else f" at {rate:g}/s"


def cluster_id(settings: Settings) -> str:
    """Ask the broker for its cluster id."""
    try:
        return str(AdminClient({"bootstrap.servers": settings.bootstrap}).list_topics(timeout=BROKER_SECONDS).cluster_id)
    except KafkaException as error:
        raise BrokerUnavailable(f"no answer from the broker at {settings.bootstrap}: {error}") from error


_LABELS = {
    "cluster_id": "Kafka cluster", "partitions": "TOPIC_PARTITIONS", "placement": "TOPIC_PLACEMENT",
    "options_feed": "the options feed", "equities_feed": "the equities feed", "seed": "SYNTHETIC_SEED",
    "profile": "the synthetic profiles (options/equities)", "start_ts": "SYNTHETIC_START (ms)",
}  # fmt: skip


@dataclass(frozen=True)
class Pins:
    """What all processes of a namespace must agree on; feeds and what follows are null until an edge has pinned them."""

    cluster_id: str
    partitions: int
    placement: str
    options_feed: str | None = None
    equities_feed: str | None = None
    seed: int | None = None
    profile: str | None = None
    start_ts: int | None = None

    @classmethod
    def of(cls, settings: Settings, cluster: str, *, edge: bool = False) -> Pins:
        """Return the pins that these settings ask for; a worker or gateway has no say in the feeds."""
        pins = cls(cluster, settings.topic_partitions, placement_text(settings))
        if not edge:
            return pins
        feeds = (settings.options_ingest_adapter, settings.equities_ingest_adapter)
        if "synthetic" not in feeds:
            return replace(pins, options_feed=feeds[0], equities_feed=feeds[1])
        profile = f"{settings.options_profile}/{settings.equities_profile}{_rate_text(settings)}"
        return replace(
            pins, options_feed=feeds[0], equities_feed=feeds[1], seed=settings.synthetic_seed, profile=profile,
            start_ts=settings.synthetic_start,
        )  # fmt: skip

    @classmethod
    def check_or_write(
        cls, settings: Settings, *, edge: bool = False, log: RunLog | None = None, cluster: str | None = None, now_ms: int | None = None
    ) -> Pins:
        """Compare this process with the namespace's pins; write those that are not pinned yet.

        Args:
            edge: whether this process feeds the namespace and so pins feeds, seed, profiles and start.
            log, cluster, now_ms: where Run rows are, the broker's cluster id, the wall clock; for tests.

        Returns:
            The pins in force; `start_ts` is that of the first start.

        Raises:
            NamespaceError: says what differs, which namespace to choose or how to reset.
        """
        cluster = cluster or cluster_id(settings)
        log = log or KafkaRunLog(settings)
        wanted = cls.of(settings, cluster, edge=edge)
        if edge:
            _refuse_mixed_feeds(wanted)
        with _locked(settings.home / settings.namespace) as directory:
            _check_local_copy(settings, directory, wanted)
            stored_row = log.read_all().get(PIN_KEY)
            if stored_row is None and (directory / "pins.json").exists():
                raise NamespaceError(
                    f"namespace {settings.namespace} has local state in {directory} but its log on the broker is gone; "
                    f"clear what is left with `flow reset {settings.namespace}`, or choose another FLOW_NAMESPACE"
                )
            stored = None if stored_row is None else cls(**{item.name: stored_row[item.name] for item in fields(cls)})
            pins = wanted if stored is None else _merge(settings, stored, wanted)
            if edge and "synthetic" in (pins.options_feed, pins.equities_feed) and pins.start_ts is None:
                pins = replace(pins, start_ts=now_ms or time.time_ns() // 1_000_000)
            if pins != stored:
                log.write([{"key": PIN_KEY, "kind": "pin", **asdict(pins)}])
            _write_local_copy(directory, pins)
        return pins


def _refuse_mixed_feeds(pins: Pins) -> None:
    if pins.equities_feed == "synthetic" and pins.options_feed not in ("synthetic", "none"):
        raise NamespaceError(
            f"OPTIONS_INGEST_ADAPTER was {pins.options_feed} beside EQUITIES_INGEST_ADAPTER synthetic; real prints are never "
            "set against an invented market: set EQUITIES_INGEST_ADAPTER to none or to a real feed"
        )


def _merge(settings: Settings, stored: Pins, wanted: Pins) -> Pins:
    """Return the stored pins with what was not pinned yet filled in; refuse what differs."""
    merged, wrong = {}, []
    for item in fields(Pins):
        old, new = getattr(stored, item.name), getattr(wanted, item.name)
        merged[item.name] = new if old is None else old
        if old is not None and new is not None and old != new:
            wrong.append(f"{_LABELS[item.name]} is {old!r} there and {new!r} here")
    if wrong:
        raise NamespaceError(
            f"namespace {settings.namespace} holds another time line: {'; '.join(wrong)}. Set FLOW_NAMESPACE to a name that is not "
            f"used yet, use the pinned values, or clear it with `flow reset {settings.namespace}`"
        )
    return Pins(**merged)


@contextmanager
def _locked(directory: Path) -> Iterator[Path]:
    """Let one process of this machine at a time look at and write a namespace's pins."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "pins.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield directory


def _check_local_copy(settings: Settings, directory: Path, wanted: Pins) -> None:
    path = directory / "pins.json"
    if not path.exists():
        return
    known = json.loads(path.read_text(encoding="utf-8"))["cluster_id"]
    if known != wanted.cluster_id:
        raise NamespaceError(
            f"namespace {settings.namespace} was made on Kafka cluster {known}; the broker at {settings.bootstrap} is cluster "
            f"{wanted.cluster_id} (wiped, or another one). Point KAFKA_BOOTSTRAP_SERVERS at the old one, choose another "
            f"FLOW_NAMESPACE, or clear the local state with `flow reset {settings.namespace}`"
        )


def _write_local_copy(directory: Path, pins: Pins) -> None:
    fresh = directory / "pins.json.new"
    fresh.write_text(json.dumps(asdict(pins), indent=1) + "\n", encoding="utf-8")
    fresh.replace(directory / "pins.json")
