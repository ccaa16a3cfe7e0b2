"""Option prints for the figures: the synthetic market taken through the edge, quotes left out of the log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from flowapp import topics
from flowapp.edge.adapters.synthetic import SyntheticAdapter
from flowapp.edge.feeds import Feeds, side_of
from flowapp.edge.ingest import Ingest, Ports
from flowapp.edge.pacing import WallClock
from flowapp.edge.rawlog import MemoryRawLog
from flowapp.engine.producer import Headers, KafkaProducer, Producer
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry
from flowapp.runs import Pins
from flowapp.settings import Settings

START_TS = 1_772_548_200_000
"""2026-03-03 14:30 UTC, a regular session's opening."""
MARKET_RATE = 20_000.0
"""Option prints of an event second: a burst of the whole market."""


@dataclass
class Tap:
    """A producer that lets only some topics through and counts what it was given, by topic without namespace."""

    producer: Producer | None
    namespace: str
    wanted: Sequence[str]
    on_send: Callable[[str, Sequence[bytes], Sequence[int]], None] = lambda topic, values, partitions: None
    events: Counter[str] = field(default_factory=Counter)

    def send(
        self,
        topic: str,
        values: Sequence[bytes],
        *,
        keys: Sequence[bytes | None],
        partitions: Sequence[int],
        timestamps: Sequence[int],
        headers: Headers | None = None,
    ) -> None:
        name = topic.removeprefix(self.namespace + ".")
        self.events[name] += len(values)
        if self.producer is not None and name in self.wanted:
            self.on_send(name, values, partitions)
            self.producer.send(topic, values, keys=keys, partitions=partitions, timestamps=timestamps, headers=headers)

    def flush(self) -> None:
        if self.producer is not None:
            self.producer.flush()

    def depth(self) -> int:
        return 0 if self.producer is None else self.producer.depth()

    def close(self) -> None:
        if self.producer is not None:
            self.producer.close()


@dataclass(frozen=True)
class Tape:
    """What was written: records and ticks of options.prints, all events that went through the edge, and how long it took."""

    records: int
    events: int
    seconds: float
    cpu_seconds: float


def tape_settings(settings: Settings, rate: float, profile: str = "active", speed: float = 0.0) -> Settings:
    """Return settings under which the synthetic market runs at `rate` option prints an event second."""
    return replace(settings, synthetic_market_mode=profile, synthetic_rate=rate, synthetic_start=START_TS, flow_speed=speed)


def edge(settings: Settings, producer: Producer, seconds: int, hot_share: float = 0.0) -> Ingest:
    """Build an edge over `seconds` event seconds of the synthetic market."""
    adapter = SyntheticAdapter(settings, START_TS, limit_ticks=seconds, hot_share=hot_share)
    side = side_of([adapter])
    feeds = Feeds([adapter], f"bench-{settings.synthetic_seed}", side, side, one_feed=True, speed=settings.flow_speed)
    codec = Codec(HttpRegistry(settings.registry_url))
    ports = Ports(producer, codec, MemoryRawLog(settings.namespace, []), WallClock())
    return Ingest(settings, feeds, ports, range(settings.topic_partitions))


def write(
    settings: Settings,
    prints: int,
    hot_share: float = 0.0,
    wanted: Sequence[str] = (topics.OPTIONS_PRINTS,),
    producer: Producer | None = None,
) -> Tape:
    """Write about `prints` option prints with their ticks to a namespace's log, or to a producer that is given."""
    paced = tape_settings(settings, MARKET_RATE)
    Pins.check_or_write(paced, edge=True)
    tap = Tap(producer or KafkaProducer(settings.bootstrap, client_id="flow-bench"), settings.namespace, wanted)
    try:
        run = edge(paced, tap, max(1, round(prints / MARKET_RATE)), hot_share)
        began, cpu = time.monotonic(), time.process_time()
        run.begin()
        run.run()
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    finally:
        tap.close()
    return Tape(tap.events[topics.OPTIONS_PRINTS], sum(tap.events.values()), seconds, cpu)
