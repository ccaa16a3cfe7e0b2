"""An edge in memory: scripted feeds in, what it would have produced out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from flowapp import topics
from flowapp.edge.adapters.base import EQUITY_QUOTES, EQUITY_TRADES, OPTION_QUOTES, OPTION_TRADES, Chunk
from flowapp.edge.feeds import Feeds, Side
from flowapp.edge.ingest import Ingest, Ports
from flowapp.edge.rawlog import MemoryRawLog
from flowapp.engine.producer import MemoryProducer, Sent
from flowapp.records.codec import Codec
from flowapp.records.registry import MemoryRegistry
from flowapp.settings import Settings

CODEC = Codec(MemoryRegistry())
SCHEMAS = {"op": OPTION_TRADES, "on": OPTION_QUOTES, "ep": EQUITY_TRADES, "eq": EQUITY_QUOTES}
DEFAULTS: dict[str, dict[str, Any]] = {
    "op": {"option_contract_id": "AAPL-2024-06-21-200-C", "price": 1.0, "size": 1, "exchange": "CBOE", "conditions": []},
    "on": {"option_contract_id": "AAPL-2024-06-21-200-C", "bid": 1.0, "ask": 1.1, "bid_size": 10, "ask_size": 10, "quote_source": "event"},
    "ep": {"underlying_id": "AAPL", "price": 200.0, "size": 100, "exchange": "NYSE", "off_exchange_flag": False, "conditions": []},
    "eq": {"underlying_id": "AAPL", "bid": 199.9, "ask": 200.1, "bid_size": 100, "ask_size": 100, "quote_source": "event"},
}


def memory_settings(**values: Any) -> Settings:
    """Settings that read neither environment nor `.env`."""
    return Settings.load({}, Path("no.env"), **{"flow_namespace": "mem", "flow_speed": 0.0, **values})


def chunk(events: Sequence[dict[str, Any]], upto_ts: int) -> Chunk:
    """Build a chunk of events: `kind`, `n`, `source_ts` and what differs from the defaults."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        kind = event["kind"]
        filled = {"trace_id": f"test-{kind}-{event['n']}", **DEFAULTS[kind], **event}
        rows[kind].append({name: filled.get(name) for name in SCHEMAS[kind]})
    frames = {kind: pl.DataFrame(rows[kind], schema=schema) for kind, schema in SCHEMAS.items()}
    return Chunk(upto_ts, frames["op"], frames["on"], frames["ep"], frames["eq"])


@dataclass
class Scripted:
    """A feed of given chunks; between live ones the clock moves to the time given with each."""

    chunks_: Sequence[Chunk]
    feed: str = "test"
    vocabulary: str = "opra"
    live: bool = False
    ordered: bool = True
    clock: FakeClock | None = None
    arrivals: Sequence[int] = ()

    def chunks(self) -> Iterator[Chunk]:
        for number, part in enumerate(self.chunks_):
            if self.clock is not None and number < len(self.arrivals):
                self.clock.now = self.arrivals[number]
            yield part


@dataclass
class FakeClock:
    """A clock that moves only when told or slept on."""

    now: int = 0
    slept: list[float] = field(default_factory=list)

    def now_ms(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += max(1, round(seconds * 1000))


def feeds_of(*adapters: Any, run: str = "r1", live: bool = False, equities: bool = True, speed: float = 0.0) -> Feeds:
    """Feeds of scripted adapters; a single one delivers both kinds."""
    first, last = adapters[0], adapters[-1]
    return Feeds(
        adapters, run, Side(first.feed, first.vocabulary, first.ordered), Side(last.feed, "utp", last.ordered) if equities else None,
        one_feed=len(adapters) == 1, live=live, speed=speed,
    )  # fmt: skip


def run_edge(
    settings: Settings, feeds: Feeds, before: Sequence[Sent] = (), partitions: Sequence[int] | None = None, clock: FakeClock | None = None
) -> list[Sent]:
    """Run an edge to its feeds' end on a log that holds `before`; returns what it adds."""
    producer = MemoryProducer()
    ports = Ports(producer, CODEC, MemoryRawLog(settings.namespace, before), clock or FakeClock())
    edge = Ingest(settings, feeds, ports, list(range(settings.topic_partitions)) if partitions is None else partitions)
    edge.begin()
    assert edge.run()
    assert producer.depth() == 0
    return producer.sent


def by_partition(sent: Sequence[Sent]) -> dict[tuple[str, int], list[tuple[Any, ...]]]:
    """The log of every topic and partition."""
    logs: dict[tuple[str, int], list[tuple[Any, ...]]] = defaultdict(list)
    for record in sent:
        logs[record.topic, record.partition].append((record.key, record.value, record.timestamp))
    return dict(logs)


def decoded(sent: Sequence[Sent], topic: str, namespace: str = "mem") -> pl.DataFrame:
    """All records of a topic, with their partition."""
    records = [record for record in sent if record.topic == topics.full_name(namespace, topic)]
    result = CODEC.decode(topic, [record.value for record in records])
    assert not result.rejects
    return result.frame.with_columns(pl.Series("_partition", [record.partition for record in records], pl.Int64))


def prints(sent: Sequence[Sent], topic: str) -> pl.DataFrame:
    """The prints of a topic without its ticks."""
    return decoded(sent, topic).filter(pl.col("w").is_null())
