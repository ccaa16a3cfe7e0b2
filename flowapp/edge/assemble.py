"""Records of the raw topics, put together from what a feed delivered and the context it was observed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from flowapp.core import equities as equity_rules
from flowapp.core import prints as option_rules
from flowapp.core.rules import OptionRules
from flowapp.edge import calendar
from flowapp.edge.book import NO_SIZE, Floats, Found
from flowapp.edge.conditions import equity_columns, option_columns
from flowapp.edge.context import WITH_TRADE, Numbered, quote_ids
from flowapp.edge.instruments import Contracts
from flowapp.edge.names import Names
from flowapp.edge.order import NEVER, Bools, Ints

_OWN = {
    "bid": "q_bid",
    "ask": "q_ask",
    "bid_size": "q_bid_size",
    "ask_size": "q_ask_size",
    "bid_venue": "q_bid_venue",
    "ask_venue": "q_ask_venue",
}


@dataclass(frozen=True)
class Feed:
    """What all records of one kind share."""

    name: str
    run: str
    vocabulary: str
    live: bool
    rules: OptionRules


@dataclass(frozen=True)
class Marks:
    """What ordering said about records."""

    seq: Ints
    late: Bools

    def take(self, rows: Ints) -> Marks:
        return Marks(self.seq[rows], self.late[rows])


def _numbers(values: Ints, missing: int) -> pl.Series:
    series = pl.Series(values)
    return pl.select(pl.when(series != missing).then(series)).to_series()


def _quote(found: Found, words: Names, *, whole: bool = True) -> pl.DataFrame:
    """Return the found quotes over all trades, null where there was none or no two-sided market.

    `whole`: with sizes, venues and how it was observed.
    """
    columns = found.columns
    there = np.flatnonzero(~(np.isnan(columns["bid"]) | np.isnan(columns["ask"])))
    rows = np.flatnonzero(found.exists)[there]
    kept = {name: values[there] for name, values in columns.items()}
    numbers: dict[str, Any] = {"bid": kept["bid"], "ask": kept["ask"], "ts": kept["ts"]}
    texts = [pl.Series("id", kept["trace_id"].tolist(), pl.String)]
    if whole:
        numbers |= {"bid_size": kept["bid_size"], "ask_size": kept["ask_size"], "tie": found.tie[rows]}
        texts += [words.texts(kept[column]).alias(name) for name, column in _WORDS.items()]
    frame = pl.DataFrame(numbers).with_columns(texts)
    if whole:
        frame = frame.with_columns(pl.when(pl.col(name) != NO_SIZE).then(pl.col(name)) for name in ("bid_size", "ask_size"))
    if rows.size == found.exists.size:
        return frame
    position = np.full(found.exists.size, -1, np.int64)
    position[rows] = np.arange(rows.size)
    return frame.select(pl.all().gather(_numbers(position, -1)))


_WORDS = {"bid_venue": "bid_venue", "ask_venue": "ask_venue", "source": "origin"}


def _with_own(quote: pl.DataFrame, trades: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Prefer the quote that a trade brought; where it brought none although its feed always does, there is none."""
    if trades["q_ts"].null_count() == trades.height:
        return quote
    both_ns = pl.col("q_ts_ns").is_not_null() & pl.col("feed_ts_ns").is_not_null()
    tie = pl.when(both_ns).then(pl.col("q_ts_ns") == pl.col("feed_ts_ns")).otherwise(pl.col("q_ts") == pl.col("source_ts"))
    two_sided = pl.col("q_bid").is_not_null() & pl.col("q_ask").is_not_null()
    columns: dict[str, pl.Expr] = {
        **{name: pl.col(source) for name, source in _OWN.items()},
        "ts": pl.col("q_ts"), "tie": tie, "id": pl.lit(quote_ids(trades, kind)), "source": pl.lit(WITH_TRADE),
    }  # fmt: skip
    own = trades.select(pl.when(two_sided).then(column).alias(name) for name, column in columns.items())
    brought = trades["q_ts"].is_not_null()
    return quote.select(pl.when(brought).then(own[name]).otherwise(pl.col(name)).alias(name) for name in quote.columns)


def _event(trades: Numbered, feed: Feed, marks: Marks) -> list[pl.Series | pl.Expr]:
    ingest = pl.Series(trades.part.arrival) if feed.live else trades.part.frame["source_ts"]
    return [
        ingest.alias("ingest_ts"), pl.Series("seq", marks.seq), pl.lit(feed.name).alias("feed"), pl.lit(feed.run).alias("run"),
        pl.Series("arrived_late", marks.late), pl.Series("time_suspect", trades.part.suspect),
    ]  # fmt: skip


def _feed_time(feed_time: Ints, ts: pl.Series) -> pl.Series:
    return pl.select(pl.min_horizontal(_numbers(feed_time, NEVER), pl.when(pl.Series(feed_time != NEVER)).then(ts))).to_series()


_SPREAD_POSITION = pl.when(pl.col("_ask") > pl.col("_bid")).then((pl.col("price") - pl.col("_bid")) / (pl.col("_ask") - pl.col("_bid")))


def option_prints(
    trades: Numbered, own: Found, underlying: Found, feed_time: Ints, marks: Marks, contracts: Contracts, feed: Feed, words: Names
) -> pl.DataFrame:
    """Build OptionPrint rows with their verdict."""
    frame = trades.part.frame
    quote = _with_own(_quote(own, words), frame, "op")
    of_underlying = _quote(underlying, words, whole=False)
    days, sessions = calendar.sessions(frame["source_ts"].to_numpy(), contracts.hours[trades.code])
    kept = frame.select("source_ts", "trace_id", "feed_ts_ns", "option_contract_id", "price", "size", "exchange", "conditions")
    joined = kept.with_columns(
        *_event(trades, feed, marks), *contracts.table[trades.code].get_columns(), *option_columns(frame, feed.vocabulary).get_columns(),
        days.alias("trade_date"), sessions.alias("session"), quote["bid"].alias("nbbo_bid"), quote["ask"].alias("nbbo_ask"),
        quote["bid_size"].alias("nbbo_bid_size"), quote["ask_size"].alias("nbbo_ask_size"), quote["bid_venue"].alias("nbbo_bid_venue"),
        quote["ask_venue"].alias("nbbo_ask_venue"), quote["ts"].alias("nbbo_ts"), quote["id"].alias("nbbo_id"),
        quote["source"].alias("quote_source"), quote["tie"].alias("quote_tie"),
        _feed_time(feed_time, frame["source_ts"]).alias("quote_feed_ts"), of_underlying["bid"].alias("underlying_bid"),
        of_underlying["ask"].alias("underlying_ask"), of_underlying["ts"].alias("underlying_ts"),
        of_underlying["id"].alias("underlying_quote_id"), quote["bid"].alias("_bid"), quote["ask"].alias("_ask"),
    )  # fmt: skip
    return option_rules.stamp(joined.with_columns(_SPREAD_POSITION.alias("spread_pos")), feed.rules)


def equity_prints(
    trades: Numbered, own: Found, band: tuple[Floats, Floats, Floats, Floats], feed_time: Ints, marks: Marks, feed: Feed, words: Names
) -> pl.DataFrame:
    """Build EquityPrint rows with their stamp."""
    frame = trades.part.frame
    quote = _with_own(_quote(own, words), frame, "ep")
    hours = np.full(frame.height, calendar.STOCK, np.int64)
    days, sessions = calendar.sessions(frame["source_ts"].to_numpy(), hours)
    bands = [
        pl.Series(name, values).fill_nan(None) for name, values in zip(("bid_low", "bid_high", "ask_low", "ask_high"), band, strict=True)
    ]
    joined = frame.select(pl.exclude("^q_.*$", "n")).with_columns(
        *_event(trades, feed, marks), *equity_columns(frame, feed.vocabulary).get_columns(), days.alias("trade_date"),
        sessions.alias("session"), quote["bid"].alias("quote_bid"), quote["ask"].alias("quote_ask"),
        quote["bid_size"].alias("quote_bid_size"), quote["ask_size"].alias("quote_ask_size"), quote["ts"].alias("quote_ts"),
        quote["id"].alias("quote_id"), quote["source"].alias("quote_source"), quote["tie"].alias("quote_tie"),
        _feed_time(feed_time, frame["source_ts"]).alias("quote_feed_ts"), *bands, quote["bid"].alias("_bid"), quote["ask"].alias("_ask"),
    )  # fmt: skip
    return equity_rules.stamp(joined.with_columns(_SPREAD_POSITION.alias("spread_pos")), feed.rules)


def quotes(numbered: Numbered, marks: Marks, feed: Feed, underlying_id: pl.Series | None) -> pl.DataFrame:
    """Build OptionNbbo or EquityQuote rows; `underlying_id` where the feed itself does not name it."""
    frame = numbered.part.frame.with_columns(*_event(numbered, feed, marks))
    if underlying_id is None:
        return frame
    return frame.with_columns(underlying_id.alias("underlying_id"), pl.col("bid_size").fill_null(0), pl.col("ask_size").fill_null(0))
