"""What a feed delivers: frames of trades and quotes in feed order, one chunk after another.

Adapters are pure readers: they neither wait, nor join, nor judge. Every frame has

    n            Int64    position in the feed's own order, across kinds; ties of time are resolved by it
    source_ts    Int64    event time, ms UTC
    feed_ts_ns   Int64?   event time, ns UTC, when the feed has it
    trace_id     String   raw id (see records.identity)

Underlyings are in upper case, contracts as `records.identity` prints them. A quote delivered with its trade stands in
the trade's `q_*` columns (`q_ts` null when there is none; `q_ts` with a null bid or ask: the feed says that there was
no two-sided market). A quote with a null bid or ask likewise ends the last one.

An adapter may also have these attributes:

    live      bool   it follows the wall clock and yields an empty chunk when nothing came for a while (default: false)
    ordered   bool   `n` tells which of a quote and a trade of the same time came first (default: true)
    source    str    name of what it reads, for dead letters (default: the feed's name)
    digest    str    first 8 hexadecimal digits of a file's sha256 (default: none)
    progress  float  share of a file that was delivered, 0 to 1 (default: unknown)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import polars as pl

_Columns = dict[str, pl.DataType | type[pl.DataType]]
_EVENT: _Columns = {"n": pl.Int64, "source_ts": pl.Int64, "feed_ts_ns": pl.Int64, "trace_id": pl.String}
_WITH_TRADE: _Columns = {
    "q_ts": pl.Int64, "q_ts_ns": pl.Int64, "q_bid": pl.Float64, "q_ask": pl.Float64, "q_bid_size": pl.Int64, "q_ask_size": pl.Int64,
    "q_bid_venue": pl.String, "q_ask_venue": pl.String,
}  # fmt: skip
_QUOTE: _Columns = {
    "bid": pl.Float64, "ask": pl.Float64, "bid_size": pl.Int64, "ask_size": pl.Int64, "bid_venue": pl.String, "ask_venue": pl.String,
    "quote_source": pl.String,
}  # fmt: skip

OPTION_TRADES = pl.Schema(
    {
        **_EVENT, "option_contract_id": pl.String, "price": pl.Float64, "size": pl.Int64, "exchange": pl.String,
        "conditions": pl.List(pl.String), **_WITH_TRADE,
    }
)  # fmt: skip
OPTION_QUOTES = pl.Schema({**_EVENT, "option_contract_id": pl.String, **_QUOTE})
EQUITY_TRADES = pl.Schema(
    {
        **_EVENT, "underlying_id": pl.String, "price": pl.Float64, "size": pl.Int64, "size_frac_micro": pl.Int64,
        "exchange": pl.String, "tape": pl.String, "exec_ts": pl.Int64, "trf_id": pl.String, "off_exchange_flag": pl.Boolean,
        "conditions": pl.List(pl.String), **_WITH_TRADE,
    }
)  # fmt: skip
EQUITY_QUOTES = pl.Schema({**_EVENT, "underlying_id": pl.String, **_QUOTE})


@dataclass(frozen=True)
class Refusal:
    """A row of the source that cannot become a record: its number, its bytes, and why."""

    row: int
    raw: bytes
    reason: str
    error: str


@dataclass(frozen=True)
class Chunk:
    """Events of one feed; every event of it with source_ts <= `upto_ts` has now been delivered."""

    upto_ts: int
    option_trades: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=OPTION_TRADES))
    option_quotes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=OPTION_QUOTES))
    equity_trades: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EQUITY_TRADES))
    equity_quotes: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EQUITY_QUOTES))
    refusals: tuple[Refusal, ...] = ()


class Adapter(Protocol):
    """One feed. Restartable sources yield the same chunks again from their start."""

    feed: str
    vocabulary: str
    """Condition policy table that maps this feed's condition codes; `none` when it carries none."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield the feed's events in order, until it ends."""
        ...
