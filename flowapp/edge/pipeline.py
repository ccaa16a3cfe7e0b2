"""From ordered events to produced records: one step a batch, all in columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from flowapp import topics
from flowapp.edge.assemble import equity_prints, option_prints, quotes
from flowapp.edge.book import Floats, Found
from flowapp.edge.context import Context, FeedTime, Numbered
from flowapp.edge.instruments import Contracts, Underlyings
from flowapp.edge.lane import Arranged, Lane, owned
from flowapp.edge.order import EQUITY_QUOTE, EQUITY_TRADE, OPTION_QUOTE, OPTION_TRADE, Batch, Bools, Ints
from flowapp.edge.outlet import Outlet
from flowapp.edge.ticks import Grid, TickClock
from flowapp.engine.producer import Producer
from flowapp.records.codec import Codec

Compare = Callable[[str, int, bytes, bytes], None]
"""Told (topic, partition, logged value, value made again) of the last record that a log holds; raises when they differ."""


@dataclass(frozen=True)
class Sink:
    """Where records go."""

    namespace: str
    codec: Codec
    producer: Producer
    compare: Compare


class Pipeline:
    """Joins, numbers, builds, encodes and sends.

    Args:
        mine: by partition, whether this edge writes it.
        options, equities: the lanes; a feed that is off has none.
    """

    def __init__(
        self,
        sink: Sink,
        underlyings: Underlyings,
        mine: Bools,
        clock: TickClock,
        context: Context,
        options: Lane | None,
        equities: Lane | None,
    ) -> None:
        self._sink, self._mine, self._clock, self._context = sink, mine, clock, context
        self._underlyings, self._contracts = underlyings, Contracts(underlyings)
        self._options, self._equities = options, equities
        self._option_time, self._equity_time = FeedTime(), FeedTime()

    @property
    def lanes(self) -> list[Lane]:
        return [lane for lane in (self._options, self._equities) if lane is not None]

    @property
    def behind(self) -> bool:
        """Whether the log holds records that were not made again yet."""
        return any(outlet.behind for lane in self.lanes for outlet in (lane.prints, lane.quotes))

    @property
    def newest(self) -> int:
        """Time of the newest event, ms."""
        return self._clock.newest

    def finish(self, batch: Batch, wait_ms: int) -> None:
        """Write the ticks that close what any fold may hold; `batch` is an empty one."""
        self._write(batch, self._clock.finish(wait_ms))

    def step(self, batch: Batch) -> None:
        """Take a batch all the way."""
        grid = self._clock.advance(batch)
        if batch.size or grid.w.size:
            self._write(batch, grid)

    def _write(self, batch: Batch, grid: Grid) -> None:
        of_contract = [self._contracts.numbers(batch.parts[kind].frame["option_contract_id"]) for kind in (OPTION_TRADE, OPTION_QUOTE)]
        of_equity = [self._underlyings.numbers(batch.parts[kind].frame["underlying_id"]) for kind in (EQUITY_TRADE, EQUITY_QUOTE)]
        option_trades, option_quotes = (
            self._owned(batch, kind, code, self._contracts.underlying[code])
            for kind, code in zip((OPTION_TRADE, OPTION_QUOTE), of_contract, strict=True)
        )
        equity_trades, equity_quotes = (
            self._owned(batch, kind, code, code) for kind, code in zip((EQUITY_TRADE, EQUITY_QUOTE), of_equity, strict=True)
        )
        options = None if self._options is None else self._options.arrange(grid, *option_trades, *option_quotes)
        equities = None if self._equities is None else self._equities.arrange(grid, *equity_trades, *equity_quotes)
        option_time = self._option_time.at(batch.parts[OPTION_QUOTE], option_trades[0].part.index)
        equity_time = self._equity_time.at(batch.parts[EQUITY_QUOTE], equity_trades[0].part.index)
        underlying = self._contracts.underlying[option_trades[0].code]
        own, of_underlying, of_stock, band = self._context.freeze(
            (option_trades[0], option_quotes[0]), (equity_trades[0], equity_quotes[0]), underlying, self._contracts.count,
            self._underlyings.count,
        )  # fmt: skip
        if equities is not None and self._equities is not None:
            self._write_equities(self._equities, equities, of_stock, band, equity_time)
        if options is not None and self._options is not None:
            self._write_options(self._options, options, own, of_underlying, option_time)

    def _owned(self, batch: Batch, kind: int, code: Ints, underlying: Ints) -> tuple[Numbered, Ints]:
        return owned(Numbered(batch.parts[kind], code), self._underlyings.partition[underlying], self._mine)

    def _write_options(self, lane: Lane, batch: Arranged, own: Found, of_underlying: Found, time: Ints) -> None:
        self._write_quotes(lane, batch, self._contracts)
        rows = lane.prints.wanted(batch.trade_partition, batch.trade_marks.seq)
        trades = _take(batch.trades, rows)
        marks, words = batch.trade_marks.take(rows), self._context.words
        found = _of_rows(own, rows), _of_rows(of_underlying, rows)
        frame = option_prints(trades, *found, time[rows], marks, self._contracts, lane.feed, words)
        self._write_prints(lane, batch, rows, frame, self._contracts.underlying[trades.code])

    def _write_equities(self, lane: Lane, batch: Arranged, own: Found, band: tuple[Floats, Floats, Floats, Floats], time: Ints) -> None:
        self._write_quotes(lane, batch, None)
        rows = lane.prints.wanted(batch.trade_partition, batch.trade_marks.seq)
        trades = _take(batch.trades, rows)
        of_rows = (band[0][rows], band[1][rows], band[2][rows], band[3][rows])
        frame = equity_prints(
            trades, _of_rows(own, rows), of_rows, time[rows], batch.trade_marks.take(rows), lane.feed, self._context.words
        )
        self._write_prints(lane, batch, rows, frame, trades.code)

    def _write_quotes(self, lane: Lane, batch: Arranged, contracts: Contracts | None) -> None:
        partition, seq = batch.written_partition, batch.written_marks.seq
        rows = lane.quotes.wanted(partition, seq)
        if not rows.size:
            return
        numbered = _take(batch.written, rows)
        names = None if contracts is None else contracts.table["underlying_id"].gather(numbered.code)
        frame = quotes(numbered, batch.written_marks.take(rows), lane.feed, names)
        underlying = numbered.code if contracts is None else contracts.underlying[numbered.code]
        values = self._sink.codec.encode(lane.kind.quote_record, frame)
        keys = [self._underlyings.keys[code] for code in underlying.tolist()]
        self._send(lane.quotes, values, keys, partition[rows], frame["source_ts"].to_list(), seq[rows])

    def _write_prints(self, lane: Lane, batch: Arranged, rows: Ints, frame: pl.DataFrame, underlying: Ints) -> None:
        """Write prints and ticks of a lane, one order for both."""
        ticks = lane.prints.wanted(batch.ticks.partition, batch.tick_seq)
        if not rows.size and not ticks.size:
            return
        codec, feed = self._sink.codec, lane.feed
        values = codec.encode(lane.kind.print_record, frame) if rows.size else []
        keys: list[bytes | None] = [self._underlyings.keys[code] for code in underlying.tolist()]
        tick_frame = pl.DataFrame({"w": batch.ticks.w[ticks], "seq": batch.tick_seq[ticks]})
        values += codec.encode("Tick", tick_frame.with_columns(pl.lit(feed.name).alias("feed"), pl.lit(feed.run).alias("run")))
        keys += [None] * ticks.size
        place = np.concatenate((batch.trades.place[rows], 2 * batch.ticks.before[ticks]))
        partition = np.concatenate((batch.trade_partition[rows], batch.ticks.partition[ticks]))
        seq = np.concatenate((batch.trade_marks.seq[rows], batch.tick_seq[ticks]))
        # Within a partition seq is the order; ticks of one place differ in it.
        order = np.lexsort((seq, place))
        at = order.tolist()
        times = np.concatenate((frame["source_ts"].to_numpy(), tick_frame["w"].to_numpy()))[order].tolist()
        self._send(lane.prints, [values[i] for i in at], [keys[i] for i in at], partition[order], times, seq[order])

    def _send(
        self, outlet: Outlet, values: Sequence[bytes], keys: Sequence[bytes | None], partition: Ints, times: Sequence[int], seq: Ints
    ) -> None:
        logged = outlet.is_logged(partition, seq)
        partitions = partition.tolist()
        if any(logged):
            for i in np.flatnonzero(np.array(logged)).tolist():
                # Only the last few of the log's records were read.
                known = outlet.logged.values[partitions[i]].get(int(seq[i]))
                if known is not None:
                    self._sink.compare(outlet.topic, partitions[i], known, values[i])
            fresh = [i for i, is_there in enumerate(logged) if not is_there]
            values, keys = [values[i] for i in fresh], [keys[i] for i in fresh]
            partitions, times = [partitions[i] for i in fresh], [times[i] for i in fresh]
        topic = topics.full_name(self._sink.namespace, outlet.topic)
        self._sink.producer.send(topic, values, keys=keys, partitions=partitions, timestamps=times)


def _take(numbered: Numbered, rows: Ints) -> Numbered:
    return numbered if rows.size == numbered.code.size else Numbered(numbered.part.take(rows), numbered.code[rows])


def _of_rows(found: Found, rows: Ints) -> Found:
    if rows.size == found.exists.size:
        return found
    inside = np.cumsum(found.exists) - 1
    kept = rows[found.exists[rows]]
    return Found(found.exists[rows], found.tie[rows], {name: values[inside[kept]] for name, values in found.columns.items()})
