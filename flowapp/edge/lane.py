"""One kind of feed on its way to its two raw topics: who is late, which seq every record gets, where ticks stand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from flowapp import topics
from flowapp.edge.assemble import Feed, Marks
from flowapp.edge.context import Numbered, with_trade_quotes
from flowapp.edge.order import Bools, Ints, Part
from flowapp.edge.outlet import Outlet
from flowapp.edge.ticks import Grid, Placed, TopicTicks


@dataclass(frozen=True)
class Kind:
    """What distinguishes options from equities."""

    prints_topic: str
    quotes_topic: str
    print_record: str
    quote_record: str
    id_kind: str
    instrument: str


OPTIONS = Kind(topics.OPTIONS_PRINTS, topics.OPTIONS_NBBO, "OptionPrint", "OptionNbbo", "op", "option_contract_id")
EQUITIES = Kind(topics.EQUITIES_PRINTS, topics.EQUITIES_QUOTES, "EquityPrint", "EquityQuote", "ep", "underlying_id")


@dataclass(frozen=True)
class Arranged:
    """A batch's records of a lane in the order of its log.

    `trades` and `quotes` are all of this edge's partitions; `written` are the quotes that become records, those
    delivered with a trade included. Partitions and marks are row by row.
    """

    trades: Numbered
    trade_partition: Ints
    trade_marks: Marks
    quotes: Numbered
    written: Numbered
    written_place: Ints
    written_partition: Ints
    written_marks: Marks
    ticks: Placed
    tick_seq: Ints


class Lane:
    """A feed's two topics and its ticks."""

    def __init__(self, kind: Kind, feed: Feed, prints: Outlet, quotes: Outlet, ticks: TopicTicks) -> None:
        self.kind, self.feed = kind, feed
        self.prints, self.quotes = prints, quotes
        self._ticks = ticks

    def arrange(self, grid: Grid, trades: Numbered, trade_partition: Ints, quotes: Numbered, quote_partition: Ints) -> Arranged:
        """Place ticks among a batch's records and number them all."""
        written, place, partition = self._written(trades, trade_partition, quotes, quote_partition)
        parts = (trades.part, written.part)
        moves = np.concatenate((np.ones(trades.part.size, bool), np.zeros(written.part.size, bool)))
        placed = self._ticks.place(
            grid, np.concatenate((trade_partition, partition)), np.concatenate([part.index for part in parts]),
            np.concatenate([part.frame["source_ts"].to_numpy() for part in parts]),
            np.concatenate([part.suspect for part in parts]), moves,
        )  # fmt: skip
        late = placed.late[: trades.part.size], placed.late[trades.part.size :]
        seq = self.prints.number(np.concatenate((trade_partition, placed.partition)), np.concatenate((trades.place, 2 * placed.before)))
        return Arranged(
            trades, trade_partition, Marks(seq[: trades.part.size], late[0]), quotes, written, place, partition,
            Marks(self.quotes.number(partition, place), late[1]), placed, seq[trades.part.size :],
        )  # fmt: skip

    def _written(self, trades: Numbered, trade_partition: Ints, quotes: Numbered, quote_partition: Ints) -> tuple[Numbered, Ints, Ints]:
        """Return the quotes that become records, in their order: two-sided ones, those delivered with a trade before it."""
        frame, part = quotes.part.frame, quotes.part
        alone = np.flatnonzero(frame.select(_two_sided("bid", "ask")).to_series().to_numpy())
        own = trades.part.frame
        brought = np.empty(0, np.int64)
        if own["q_ts"].null_count() < own.height:
            brought = np.flatnonzero(own.select(_two_sided("q_bid", "q_ask") & pl.col("q_ts").is_not_null()).to_series().to_numpy())
        if not brought.size:
            return Numbered(part.take(alone), quotes.code[alone]), quotes.place[alone], quote_partition[alone]
        taken, source = part.take(alone), trades.part.take(brought)
        extra = with_trade_quotes(source.frame, self.kind.id_kind).with_columns(pl.lit(None, pl.Int64).alias("n")).select(frame.columns)
        place = np.concatenate((quotes.place[alone], trades.place[brought] - 1))
        order = np.argsort(place, kind="stable")
        merged = Part(
            pl.concat([taken.frame, extra])[order], np.concatenate((taken.index, source.index))[order],
            np.concatenate((taken.effective, source.effective))[order], np.concatenate((taken.suspect, source.suspect))[order],
            np.concatenate((taken.arrival, source.arrival))[order],
        )  # fmt: skip
        code = np.concatenate((quotes.code[alone], trades.code[brought]))[order]
        return Numbered(merged, code), place[order], np.concatenate((quote_partition[alone], trade_partition[brought]))[order]


def _two_sided(bid: str, ask: str) -> pl.Expr:
    return pl.col(bid).is_not_null() & pl.col(ask).is_not_null()


def owned(numbered: Numbered, partition: Ints, mine: Bools) -> tuple[Numbered, Ints]:
    """Keep the rows of this edge's partitions."""
    rows = np.flatnonzero(mine[partition])
    if rows.size == partition.size:
        return numbered, partition
    return replace(numbered, part=numbered.part.take(rows), code=numbered.code[rows]), partition[rows]
