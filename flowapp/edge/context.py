"""The context of a trade as it was when the trade was observed: its quote, its underlying's quote, its quote's feed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from flowapp.edge.band import Band
from flowapp.edge.book import NO_NS, NO_SIZE, Book, Floats, Found, Quotes, Wanted
from flowapp.edge.names import Names
from flowapp.edge.order import NEVER, Ints, Part

WITH_TRADE, SAMPLED = "with_trade", "sampled"
_QUOTE_IDS = {"op": "on", "ep": "eq"}


@dataclass(frozen=True)
class Numbered:
    """A part of a batch with its instruments' numbers."""

    part: Part
    code: Ints

    @property
    def place(self) -> Ints:
        return 2 * self.part.index + 1


def quote_ids(trades: pl.DataFrame, kind: str) -> pl.Series:
    """Return the ids of quotes delivered with trades: the trade's own, with the kind of a quote."""
    return trades["trace_id"].str.replace(f"-{kind}-", f"-{_QUOTE_IDS[kind]}-", literal=True)


def with_trade_quotes(trades: pl.DataFrame, kind: str) -> pl.DataFrame:
    """Return the quote columns of trades that brought one."""
    return trades.select(
        pl.col("q_ts").alias("source_ts"), pl.col("q_ts_ns").alias("feed_ts_ns"), quote_ids(trades, kind).alias("trace_id"),
        pl.col("^(option_contract_id|underlying_id)$"), pl.col("q_bid").alias("bid"), pl.col("q_ask").alias("ask"),
        pl.col("q_bid_size").alias("bid_size"), pl.col("q_ask_size").alias("ask_size"), pl.col("q_bid_venue").alias("bid_venue"),
        pl.col("q_ask_venue").alias("ask_venue"), pl.lit(WITH_TRADE).alias("quote_source"),
    )  # fmt: skip


def columns_of(frame: pl.DataFrame, code: Ints, place: Ints, words: Names) -> Quotes:
    """Return a quote frame's columns for the book."""
    return Quotes(
        place, code, frame["source_ts"].to_numpy(), frame["feed_ts_ns"].fill_null(NO_NS).to_numpy(),
        frame["bid"].fill_null(np.nan).to_numpy(), frame["ask"].fill_null(np.nan).to_numpy(),
        frame["bid_size"].fill_null(NO_SIZE).to_numpy(), frame["ask_size"].fill_null(NO_SIZE).to_numpy(),
        words.numbers(frame["bid_venue"])[0], words.numbers(frame["ask_venue"])[0], words.numbers(frame["quote_source"])[0],
        frame["trace_id"].to_numpy(),
    )  # fmt: skip


def _wanted(trades: Numbered, code: Ints, *, ties: bool, at: str | None = None) -> Wanted:
    frame = trades.part.frame
    ts, ns = frame["source_ts"], frame["feed_ts_ns"]
    if at is not None:
        ns = pl.select(pl.when(frame[at].is_null()).then(ns)).to_series()
        ts = frame[at].fill_null(ts)
    return Wanted(trades.place, code, ts.to_numpy(), ns.fill_null(NO_NS).to_numpy(), ties)


def _merged(first: Quotes, second: Quotes) -> Quotes:
    order = np.argsort(np.concatenate((first.place, second.place)), kind="stable")
    names = Quotes.__dataclass_fields__
    return Quotes(*(np.concatenate((getattr(first, name), getattr(second, name)))[order] for name in names))


class FeedTime:
    """The newest quote of a feed as batches pass."""

    def __init__(self) -> None:
        self._newest = NEVER

    def at(self, quotes: Part, index: Ints) -> Ints:
        """Return the newest quote's time, ms, before each place of a batch; NEVER before the first."""
        credible = ~quotes.suspect
        times = np.concatenate(([self._newest], quotes.frame["source_ts"].to_numpy()[credible]))
        newest = np.maximum.accumulate(times)
        self._newest = int(newest[-1])
        return newest[np.searchsorted(quotes.index[credible], index)]


class Context:
    """The books of both feeds.

    Args:
        ordered: whether a feed's own order tells which of a quote and a trade of equal time came first (options, equities).
        one_feed: whether both kinds come from one feed and so have one order.
        band_ms: how long ago an off-exchange trade may have happened when its report does not say.
    """

    def __init__(self, ordered: tuple[bool, bool], *, one_feed: bool, band_ms: int) -> None:
        self._ordered, self._one_feed = ordered, one_feed
        self._options, self._equities, self._band = Book(), Book(), Band(band_ms)
        self.words = Names()

    def freeze(
        self, options: tuple[Numbered, Numbered], equities: tuple[Numbered, Numbered], underlying: Ints, contracts: int, underlyings: int
    ) -> tuple[Found, Found, Found, tuple[Floats, Floats, Floats, Floats]]:
        """Answer a batch's trades; (trades, quotes) of each kind.

        Returns:
            The option's quote and the underlying's quote of every option trade, the quote and the band of every equity trade.
        """
        trades, quotes = options
        book_quotes = columns_of(quotes.part.frame, quotes.code, quotes.place, self.words)
        own = self._options.step(book_quotes, [_wanted(trades, trades.code, ties=self._ordered[0])], contracts)[0]
        equity_trades, equity_quotes = equities
        seen = self._equity_quotes(equity_trades, equity_quotes)
        ties = self._one_feed and self._ordered[0]
        wanted = [_wanted(trades, underlying, ties=ties), _wanted(equity_trades, equity_trades.code, ties=self._ordered[1], at="exec_ts")]
        of_underlying, of_equity = self._equities.step(seen, wanted, underlyings)
        return own, of_underlying, of_equity, self._bands(equity_trades, equity_quotes, seen)

    def _equity_quotes(self, trades: Numbered, quotes: Numbered) -> Quotes:
        """Return the quotes that others than their own trade may see; one delivered with a trade is to them a sample."""
        alone = columns_of(quotes.part.frame, quotes.code, quotes.place, self.words)
        brought = np.flatnonzero(trades.part.frame["q_ts"].is_not_null().to_numpy())
        if not brought.size:
            return alone
        frame = with_trade_quotes(trades.part.frame[brought], "ep").with_columns(pl.lit(SAMPLED).alias("quote_source"))
        return _merged(alone, columns_of(frame, trades.code[brought], trades.place[brought] - 1, self.words))

    def _bands(self, trades: Numbered, quotes: Numbered, seen: Quotes) -> tuple[Floats, Floats, Floats, Floats]:
        effective = np.concatenate((quotes.part.effective, trades.part.effective))
        index = np.concatenate((quotes.part.index, trades.part.index))
        by_index = np.argsort(index)
        time = effective[by_index][np.searchsorted(index[by_index], seen.place // 2)] if seen.place.size else seen.place
        window = self._band.keep(seen.code, seen.place, time, seen.bid, seen.ask)
        bare = trades.part.frame.select(pl.col("off_exchange_flag").fill_null(False) & pl.col("exec_ts").is_null()).to_series().to_numpy()
        rows = np.flatnonzero(bare)
        bands = []
        for column in window.around(trades.code[rows], trades.place[rows], trades.part.effective[rows]):
            values = np.full(bare.size, np.nan)
            values[rows] = column
            bands.append(values)
        if effective.size:
            self._band.forget(int(effective.max()))
        return bands[0], bands[1], bands[2], bands[3]
