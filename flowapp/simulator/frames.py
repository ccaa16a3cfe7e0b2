"""Frames of the market's events, as a feed would deliver them."""

from __future__ import annotations

import numpy as np
import polars as pl

from flowapp.simulator.dice import Ints
from flowapp.simulator.equities import EquityPrints, EquityQuotes
from flowapp.simulator.market import CENTS
from flowapp.simulator.orders import HALF_DOLLARS, Legs
from flowapp.simulator.prints import Prints
from flowapp.simulator.scenarios import CONDITION_WORDS, EQUITY_VENUES, OFF_EXCHANGE_VENUE, OPTION_VENUES, REPORTING_FACILITIES
from flowapp.simulator.symbols import NAMES, TAPE

MOST_STRIKE_DOLLARS = 10_000
HALF_TEXT = ("", ".5")
ORDINARY = "FILL"

Columns = dict[str, pl.Series | pl.Expr]

_OPTION_VENUES = pl.Series(OPTION_VENUES)
_EQUITY_VENUES = pl.Series([*EQUITY_VENUES, OFF_EXCHANGE_VENUE])
_FACILITIES = pl.Series([*REPORTING_FACILITIES, None])
_WORDS = pl.Series([[word] for word in CONDITION_WORDS])
_STRIKES = pl.Series([f"{half // HALF_DOLLARS}{HALF_TEXT[half % HALF_DOLLARS]}" for half in range(MOST_STRIKE_DOLLARS * HALF_DOLLARS)])
_RIGHTS = pl.Series(["P", "C"])
_EVENT_QUOTE = pl.lit("event").alias("quote_source")


def contract_ids(legs: Legs) -> pl.Series:
    """Render the contracts: <root>-<YYYY-MM-DD>-<strike>-<C|P>."""
    days, place = np.unique(legs.expiry, return_inverse=True)
    dates = pl.Series(days.astype("datetime64[D]").astype(str).tolist(), dtype=pl.String)
    columns = [NAMES.gather(legs.symbol), dates.gather(place), _STRIKES.gather(legs.strike), _RIGHTS.gather(legs.is_call.astype(np.int64))]
    return (
        pl.DataFrame({str(number): column for number, column in enumerate(columns)})
        .select(pl.concat_str(pl.all(), separator="-"))
        .to_series()
    )


def events(n: Ints, ts: Ints, prefix: str) -> Columns:
    """Return the columns that every event has."""
    number = pl.Series("n", n)
    ids = pl.select(pl.concat_str(pl.lit(prefix), number.cast(pl.String))).to_series()
    return {"n": number, "source_ts": pl.Series(ts), "feed_ts_ns": pl.lit(None, dtype=pl.Int64), "trace_id": ids}


def option_trades(event: Columns, ids: pl.Series, prints: Prints, rows: Ints, words: Ints) -> pl.DataFrame:
    """Build the frame of option prints; `rows` of `prints` in feed order."""
    return _frame(
        {
            **event,
            "option_contract_id": ids.gather(prints.leg[rows]),
            "price": _dollars(prints.price[rows]),
            "size": pl.Series(prints.size[rows]),
            "exchange": _OPTION_VENUES.gather(prints.venue[rows]),
            "conditions": _WORDS.gather(words),
        }
    )


def option_quotes(event: Columns, ids: pl.Series, prints: Prints, rows: Ints) -> pl.DataFrame:
    """Build the frame of option quotes; `rows` of `prints` in feed order."""
    return _frame(
        {
            **event,
            "option_contract_id": ids.gather(prints.leg[rows]),
            "bid": _dollars(prints.bid[rows]),
            "ask": _dollars(prints.ask[rows]),
            "bid_size": pl.Series(prints.bid_size[rows]),
            "ask_size": pl.Series(prints.ask_size[rows]),
            "bid_venue": _OPTION_VENUES.gather(prints.bid_venue[rows]),
            "ask_venue": _OPTION_VENUES.gather(prints.ask_venue[rows]),
            "quote_source": _EVENT_QUOTE,
        }
    )


def equity_trades(event: Columns, prints: EquityPrints, rows: Ints) -> pl.DataFrame:
    """Build the frame of equity prints; `rows` of `prints` in feed order."""
    symbol, venue, facility = prints.symbol[rows], prints.venue[rows], prints.facility[rows]
    exec_ts = pl.Series(prints.exec_ts[rows])
    word = np.full(len(rows), CONDITION_WORDS.index(ORDINARY), dtype=np.int64)
    return _frame(
        {
            **event,
            "underlying_id": NAMES.gather(symbol),
            "price": _dollars(prints.price[rows]),
            "size": pl.Series(prints.size[rows]),
            "size_frac_micro": pl.lit(None, dtype=pl.Int64),
            "exchange": _EQUITY_VENUES.gather(np.where(venue < 0, len(EQUITY_VENUES), venue)),
            "tape": TAPE.gather(symbol),
            "exec_ts": pl.when(exec_ts >= 0).then(exec_ts),
            "trf_id": _FACILITIES.gather(np.where(facility < 0, len(REPORTING_FACILITIES), facility)),
            "off_exchange_flag": pl.Series(facility >= 0),
            "conditions": _WORDS.gather(word),
        }
    )


def equity_quotes(event: Columns, quotes: EquityQuotes, rows: Ints) -> pl.DataFrame:
    """Build the frame of equity quotes; `rows` of `quotes` in feed order."""
    return _frame(
        {
            **event,
            "underlying_id": NAMES.gather(quotes.symbol[rows]),
            "bid": _dollars(quotes.bid[rows]),
            "ask": _dollars(quotes.ask[rows]),
            "bid_size": pl.Series(quotes.bid_size[rows]),
            "ask_size": pl.Series(quotes.ask_size[rows]),
            "bid_venue": _EQUITY_VENUES.gather(quotes.bid_venue[rows]),
            "ask_venue": _EQUITY_VENUES.gather(quotes.ask_venue[rows]),
            "quote_source": _EVENT_QUOTE,
        }
    )


def _frame(columns: Columns) -> pl.DataFrame:
    return pl.select([(pl.lit(column) if isinstance(column, pl.Series) else column).alias(name) for name, column in columns.items()])


def _dollars(cents: Ints) -> pl.Series:
    return pl.Series(cents / CENTS)
