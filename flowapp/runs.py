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
from typing import Any, Protocol, TypeAlias

import confluent_kafka
import polars as pl
from confluent_kafka import Consumer, KafkaException, TopicPartition

from flowapp import topics
from flowapp.errors import BrokerUnavailable, NamespaceError
from flowapp.records import schemas
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry
from flowapp.settings import Settings

Row: TypeAlias = dict[str, Any]

PIN_KEY = "pin"
BROKER_SECONDS = 10.0
READ_SECONDS = 30.0
POLL_SECONDS = 0.2
LEADER_SECONDS = 0.1
_NO_LEADER_YET = (confluent_kafka.KafkaError.NOT_LEADER_FOR_PARTITION, confluent_kafka.KafkaError.LEADER_NOT_AVAILABLE)
# One partition holds them all, so that they have one order.
PARTITION = 0


class RunLog(Protocol):
    """Where Run records are kept."""

    def read_all(self) -> dict[str, Row]:
        """Return the newest row of every key."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows; returns when they are delivered."""


class MemoryRunLog:
    """The in-memory twin."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def read_all(self) -> dict[str, Row]:
        return {row["key"]: row for row in self.rows}

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows += [_complete(row) for row in rows]


class KafkaRunLog:
    """`<namespace>.ops.runs` on the broker."""

    def __init__(self, settings: Settings) -> None:
        self._bootstrap = settings.bootstrap
        self._topic = topics.full_name(settings.namespace, topics.RUNS)
        self._codec = Codec(HttpRegistry(settings.registry_url))

    def read_all(self) -> dict[str, Row]:
        frame = self._codec.decode(topics.RUNS, self._values()).frame
        return {row["key"]: {name: row[name] for name in _FIELDS} for row in frame.iter_rows(named=True)}

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        complete = [_complete(row) for row in rows]
        values = self._codec.encode("Run", pl.DataFrame(complete, schema=schemas.frame_schema("Run")))
        producer = confluent_kafka.Producer({"bootstrap.servers": self._bootstrap, "enable.idempotence": True, "linger.ms": 0})
        failed: list[str] = []

        def report(error: Any, _message: Any) -> None:
            if error is not None:
                failed.append(str(error))

        for row, value in zip(complete, values, strict=True):
            producer.produce(self._topic, value, row["key"].encode(), PARTITION, on_delivery=report)
        if producer.flush(READ_SECONDS) or failed:
            raise BrokerUnavailable(f"{self._topic} could not be written: {'; '.join(failed) or 'the broker does not answer'}")

    def _values(self) -> list[bytes]:
        # Compaction leaves holes and a log's end may be one, so only the broker's word says that the end is reached.
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "flowapp.runs",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        try:
            low, high = _watermarks(consumer, TopicPartition(self._topic, PARTITION))
            if low == high:
                return []
            consumer.assign([TopicPartition(self._topic, PARTITION, low)])
            return list(_read_to_end(consumer, self._topic))
        except KafkaException as error:
            if error.args[0].code() in (confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART, confluent_kafka.KafkaError._UNKNOWN_PARTITION):
                raise NamespaceError(f"topic {self._topic} does not exist on {self._bootstrap}; run `flow init`") from error
            raise BrokerUnavailable(f"{self._topic} on {self._bootstrap} could not be read: {error}") from error
        finally:
            consumer.close()


def _watermarks(consumer: Any, place: Any) -> tuple[int, int]:
    """Return a partition's first offset and its end; a topic created a moment ago may still lack its leader."""
    deadline = time.monotonic() + BROKER_SECONDS
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=BROKER_SECONDS)
            return low, high
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                raise
        time.sleep(LEADER_SECONDS)


def _read_to_end(consumer: Any, topic: str) -> Iterator[bytes]:
    deadline = time.monotonic() + READ_SECONDS
    while time.monotonic() < deadline:
        message = consumer.poll(POLL_SECONDS)
        if message is None:
            continue
        if message.error() is None:
            yield message.value()
        elif message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF:
            return
        else:
            raise KafkaException(message.error())
    raise BrokerUnavailable(f"{topic} could not be read to its end in {READ_SECONDS:.0f} s")


def read_all(settings: Settings) -> dict[str, Row]:
    """Return the newest Run row of every key of the namespace."""
    return KafkaRunLog(settings).read_all()


def write(settings: Settings, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append Run rows; fields not given are null, `ts` is now."""
    KafkaRunLog(settings).write(rows)


def config_row(agent: str, partition: int, from_offset: int, rules: str, config: str, fold_version: int, clean: bool, settings: str) -> Row:
    """Build the row that says under which rules a partition is decided from an offset on; it is appended, never replaced."""
    key = f"config:{agent}:{partition}:{from_offset}"
    return _complete(
        {
            "key": key, "kind": "config", "agent": agent, "partition": partition, "from_offset": from_offset, "rules": rules,
            "config": config, "fold_version": fold_version, "clean": clean, "settings": settings,
        }
    )  # fmt: skip


def configs(rows: Mapping[str, Row], agent: str, partition: int) -> list[Row]:
    """Return the configuration rows of a partition, by the offset from which they hold."""
    found = [row for row in rows.values() if row["kind"] == "config" and row["agent"] == agent and row["partition"] == partition]
    return sorted(found, key=lambda row: int(row["from_offset"]))


_FIELDS = tuple(schemas.frame_schema("Run"))


def _complete(row: Mapping[str, Any]) -> Row:
    unknown = set(row) - set(_FIELDS)
    if unknown:
        raise KeyError(f"Run has no field {', '.join(sorted(unknown))}")
    complete: Row = {name: row.get(name) for name in _FIELDS}
    complete["sources"] = list(row.get("sources") or [])
    complete["ts"] = row.get("ts") or time.time_ns() // 1_000_000
    return complete


def placement_text(settings: Settings) -> str:
    """Return TOPIC_PLACEMENT in canonical form."""
    return ",".join(f"{name}={partition}" for name, partition in settings.topic_placement)


def _rate_text(settings: Settings) -> str:
    """Return what the asked rate adds to the profiles: another rate is another market."""
    rate = settings.synthetic_rate or (1000 / settings.emit_interval_ms if settings.emit_interval_ms else None)
    return "" if rate is None else f" at {rate:g}/s"


def cluster_id(settings: Settings) -> str:
    """Ask the broker for its cluster id."""
    from confluent_kafka.admin import AdminClient

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
