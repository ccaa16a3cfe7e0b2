"""The edge's run: reads its feeds, paces them, takes them through the pipeline, and says where it stands."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flowapp.core.rules import OptionRules
from flowapp.edge.adapters.base import Adapter, Chunk
from flowapp.edge.assemble import Feed
from flowapp.edge.context import Context
from flowapp.edge.feeds import Feeds, Side
from flowapp.edge.instruments import Underlyings
from flowapp.edge.lane import EQUITIES, OPTIONS, Kind, Lane
from flowapp.edge.order import FOREVER, Sequencer, release
from flowapp.edge.outlet import Outlet
from flowapp.edge.pacing import Clock, Pacer
from flowapp.edge.pipeline import Pipeline, Sink
from flowapp.edge.rawlog import RawLog
from flowapp.edge.refusals import Refusals
from flowapp.edge.resume import Comparison, Standing, standing
from flowapp.edge.throttle import Throttle
from flowapp.edge.ticks import TickClock, TopicTicks
from flowapp.engine.producer import Producer
from flowapp.errors import NamespaceError
from flowapp.records.codec import Codec
from flowapp.settings import Settings

LIVE_REORDER_MS = 50
LONGEST_INTERVAL_MS = 1_800_000
SLICE_SECONDS, NAP_SECONDS = 0.05, 0.25

log = logging.getLogger("flowapp.edge")


@dataclass(frozen=True)
class Ports:
    """What an edge needs of the world."""

    producer: Producer
    codec: Codec
    raw_log: RawLog
    clock: Clock


@dataclass
class Counts:
    """What a run has done so far."""

    events: int = 0
    refused: int = 0
    newest_ts: int = 0
    progress: float = 0.0


class _Source:
    """An adapter with its reorder buffer."""

    def __init__(self, adapter: Adapter, reorder_ms: int) -> None:
        self.adapter, self.live = adapter, bool(getattr(adapter, "live", False))
        self.sequencer = Sequencer(reorder_ms, live=self.live)
        self._chunks: Iterator[Chunk] = iter(adapter.chunks())

    def pull(self, clock: Clock, throttle: Throttle) -> Chunk | None:
        """Take the next chunk, None at the end."""
        chunk = next(self._chunks, None)
        if chunk is None:
            self.sequencer.end()
            return None
        self.sequencer.push(throttle.apply(chunk), clock.now_ms())
        return chunk


class Ingest:
    """One run of the edge over its partitions.

    Args:
        partitions: which ones it writes; other edges write the others from the same feeds.
        stop: asked between batches whether to end.
        report: told the counts after every batch.
    """

    def __init__(
        self, settings: Settings, feeds: Feeds, ports: Ports, partitions: Sequence[int], stop: Callable[[], bool] = lambda: False,
        report: Callable[[Counts], None] = lambda counts: None,
    ) -> None:  # fmt: skip
        self._settings, self._feeds, self._ports = settings, feeds, ports
        self._partitions, self._stop, self._report = list(partitions), stop, report
        reorder_ms = settings.edge_reorder_ms if settings.edge_reorder_ms is not None else LIVE_REORDER_MS if feeds.live else 0
        self._sources = [_Source(adapter, reorder_ms) for adapter in feeds.adapters]
        self._throttle = Throttle(settings.testing_throttle_ms if settings.testing_mode else 0)
        self._pacer = Pacer(feeds.speed, ports.clock)
        self._standings = self._look()
        self._pipeline = self._build()
        self._refusals = Refusals(
            settings.namespace, ports.codec, ports.producer, ports.raw_log, settings.topic_partitions, self._partitions, feeds.run
        )
        self.counts = Counts()

    def begin(self) -> None:
        """Look at the feeds' first events.

        Raises:
            NamespaceError: the log already holds a later market.
        """
        self._pull()
        self._refuse_earlier_market()

    def run(self) -> bool:
        """Read the feeds to their end, or until told to stop, after `begin`; returns whether the end was reached.

        Raises:
            NamespaceError: what the log holds is not what the feeds say.
        """
        while not self._stop():
            self._drain()
            if all(source.sequencer.ended for source in self._sources):
                self._finish()
                return True
            self._pull()
        self._ports.producer.flush()
        return False

    def _look(self) -> dict[str, Standing]:
        """Find out where the log stands, once nothing of an earlier edge is on its way any more."""
        kinds = [kind for kind, side in ((OPTIONS, self._feeds.options), (EQUITIES, self._feeds.equities)) if side is not None]
        names = [name for kind in kinds for name in (kind.prints_topic, kind.quotes_topic)]
        raw, codec = self._ports.raw_log, self._ports.codec
        raw.settle(names, self._partitions)
        return {name: standing(raw, codec, name, self._partitions, self._feeds.run) for name in names}

    def _build(self) -> Pipeline:
        settings, feeds, ports = self._settings, self._feeds, self._ports
        mine = np.zeros(settings.topic_partitions, bool)
        mine[self._partitions] = True
        sink = Sink(settings.namespace, ports.codec, ports.producer, Comparison(ports.codec, settings.namespace))
        ordered = tuple(side is not None and side.ordered for side in (feeds.options, feeds.equities))
        context = Context((ordered[0], ordered[1]), one_feed=feeds.one_feed, band_ms=settings.trf_delay_ms)
        underlyings = Underlyings(settings.topic_partitions, settings.topic_placement)
        return Pipeline(
            sink, underlyings, mine, TickClock(settings.tick_ms, live=feeds.live), context, self._lane(OPTIONS, feeds.options),
            self._lane(EQUITIES, feeds.equities),
        )  # fmt: skip

    def _lane(self, kind: Kind, side: Side | None) -> Lane | None:
        if side is None:
            return None
        settings = self._settings
        feed = Feed(side.name, self._feeds.run, side.vocabulary, self._feeds.live, OptionRules.of(settings))
        prints, quotes = (
            Outlet(topic, settings.topic_partitions, self._standings[topic].logged) for topic in (kind.prints_topic, kind.quotes_topic)
        )
        last = self._standings[kind.prints_topic].ticks if self._feeds.live else {}
        return Lane(kind, feed, prints, quotes, TopicTicks(self._partitions, settings.tick_ms, dict(last)))

    def _refuse_earlier_market(self) -> None:
        known = [found.newest_ts for found in self._standings.values() if found.newest_ts is not None]
        resumed = any(found.logged.seq for found in self._standings.values())
        first = min(source.sequencer.next_effective for source in self._sources)
        if self._feeds.live or resumed or not known or first > max(known) + self._settings.tick_ms:
            return
        raise NamespaceError(
            f"namespace {self._settings.namespace} already holds records and ticks up to {_moment(max(known))}, and this source begins at "
            f"{_moment(first)}; a time line only goes on: choose another FLOW_NAMESPACE, or give files of one time line in one command"
        )

    def _pull(self) -> None:
        """Take a chunk of every live feed, and of those others that have come least far."""
        least = min((source.sequencer.upto_ts for source in self._sources if not source.live), default=FOREVER)
        for source in self._sources:
            if source.sequencer.ended or (not source.live and source.sequencer.upto_ts > least):
                continue
            chunk = source.pull(self._ports.clock, self._throttle)
            if chunk is not None and chunk.refusals:
                adapter = source.adapter
                name, digest = getattr(adapter, "source", adapter.feed), getattr(adapter, "digest", self._feeds.run)
                self._refusals.write(name, digest, chunk.refusals, chunk.upto_ts)
                self.counts.refused = self._refusals.count

    def _drain(self) -> None:
        """Send what the feeds have delivered, no sooner than it is due."""
        sequencers = [source.sequencer for source in self._sources]
        reached = min(sequencer.upto_ts for sequencer in sequencers)
        while True:
            following = min(sequencer.next_effective for sequencer in sequencers)
            due = self._pacer.due_ts(following, behind=self._pipeline.behind)
            batch = release(sequencers, due)
            self._pipeline.step(batch)
            self._count(batch.size)
            if due >= reached or self._stop():
                return
            following = min(sequencer.next_effective for sequencer in sequencers)
            if following == FOREVER and all(sequencer.ended for sequencer in sequencers):
                return
            self._ports.clock.sleep(min(NAP_SECONDS, max(SLICE_SECONDS, self._pacer.seconds_until(following))))

    def _count(self, events: int) -> None:
        self.counts.events += events
        self.counts.newest_ts = self._pipeline.newest
        shares = [getattr(source.adapter, "progress", 0.0) for source in self._sources]
        self.counts.progress = sum(shares) / len(shares)
        self._report(self.counts)

    def _finish(self) -> None:
        settings = self._settings
        if self._feeds.live:
            self._ports.producer.flush()
            return
        wait_ms = max(3 * settings.cluster_window_ms + settings.tick_ms, LONGEST_INTERVAL_MS)
        self._pipeline.finish(release([source.sequencer for source in self._sources]), wait_ms)
        if self._pipeline.behind:
            raise NamespaceError(
                f"the log of namespace {settings.namespace} goes on beyond the end of this source; the source changed. Choose another "
                f"FLOW_NAMESPACE, or clear it with `flow reset {settings.namespace}`"
            )
        self._ports.producer.flush()


def _moment(ts: int) -> str:
    return str(np.datetime64(ts, "ms")) + "Z"
