"""What recorded files have in common: how they are opened, checked, cut into blocks, and how bad rows leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from flowapp.edge.adapters.base import EQUITY_QUOTES, EQUITY_TRADES, OPTION_QUOTES, OPTION_TRADES, Chunk, Refusal
from flowapp.errors import SourceError
from flowapp.records.identity import file_sha8

OPTIONS, EQUITIES = "options", "equities"
BLOCK_ROWS = 20_000
MAX_TIME_MS = 2**53
MAX_SIZE = 2**31 - 1


@dataclass(frozen=True)
class Opened:
    """A file that can be read as a file."""

    path: Path
    digest: str
    size_bytes: int


def check_file(name: str) -> Opened:
    """Open a path as a file.

    Raises:
        SourceError: it does not exist, is a directory, is empty or cannot be read.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        raise SourceError(f"{path} is a directory; give a file, or several separated by commas")
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    try:
        size = path.stat().st_size
        if size == 0:
            raise SourceError(f"{path} is empty")
        return Opened(path, file_sha8(path), size)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class Block:
    """Rows of a file as they stand there; `raw` gives the bytes of one of them."""

    trades: pl.DataFrame
    quotes: pl.DataFrame
    refusals: tuple[Refusal, ...]


def trade_errors(kind: str) -> list[tuple[pl.Expr, str, pl.Expr]]:
    """Return what makes a trade's row impossible: condition, short code, explanation."""
    instrument = "option_contract_id" if kind == OPTIONS else "underlying_id"
    price, size, ts = pl.col("price"), pl.col("size"), pl.col("source_ts")
    wrong_price = price.is_null() | ~price.is_finite() | (price < 0)
    return [
        (pl.col(instrument).is_null(), "bad_instrument", pl.format("instrument was {}; allowed: one that parses", pl.col("_named"))),
        (ts.is_null() | (ts < 0) | (ts > MAX_TIME_MS), "bad_time", pl.format("time was {}; allowed: a time of 1970 or later", _text(ts))),
        (wrong_price, "bad_price", pl.format("price was {}; allowed: a finite number >= 0", _text(price))),
        (size.is_null() | (size < 0) | (size > MAX_SIZE), "bad_size", pl.format("size was {}; allowed: a whole number", _text(size))),
        (_no_size(kind), "bad_size", pl.format("size was {}; allowed: more than 0", _text(size))),
    ]


def quote_errors(kind: str) -> list[tuple[pl.Expr, str, pl.Expr]]:
    """Return what makes a quote's row impossible."""
    instrument = "option_contract_id" if kind == OPTIONS else "underlying_id"
    ts = pl.col("source_ts")
    return [
        (pl.col(instrument).is_null(), "bad_instrument", pl.format("instrument was {}; allowed: one that parses", pl.col("_named"))),
        (ts.is_null() | (ts < 0) | (ts > MAX_TIME_MS), "bad_time", pl.format("time was {}; allowed: a time of 1970 or later", _text(ts))),
    ]


def _no_size(kind: str) -> pl.Expr:
    if kind == OPTIONS:
        return pl.col("size") == 0
    return (pl.col("size") == 0) & (pl.col("size_frac_micro").fill_null(0) == 0)


def _text(column: pl.Expr) -> pl.Expr:
    return column.cast(pl.String).fill_null("absent")


def split(frame: pl.DataFrame, errors: Sequence[tuple[pl.Expr, str, pl.Expr]]) -> tuple[pl.DataFrame, list[tuple[int, str, str]]]:
    """Part a frame into rows that can be records and (n, short code, explanation) of those that cannot."""
    bad = frame.select(pl.any_horizontal(check.fill_null(True) for check, _, _ in errors)).to_series()
    if not bad.any():
        return frame, []
    code: pl.Expr = pl.lit(None, pl.String)
    text: pl.Expr = pl.lit(None, pl.String)
    for check, short, explanation in reversed(errors):
        code = pl.when(check.fill_null(True)).then(pl.lit(short)).otherwise(code)
        text = pl.when(check.fill_null(True)).then(explanation).otherwise(text)
    rows = frame.filter(bad).select("n", code.alias("code"), text.alias("text"))
    return frame.filter(~bad), list(rows.iter_rows())


class RecordedFile:
    """One recorded file as a feed; subclasses say how its blocks are read."""

    feed: str
    vocabulary: str
    live = False
    ordered = True

    def __init__(self, opened: Opened, kind: str) -> None:
        self.path, self.digest, self.kind = opened.path, opened.digest, kind
        self.source = opened.path.name
        self.rows = 0
        self.progress = 0.0

    def blocks(self) -> Iterator[Block]:
        """Yield the file's rows in order."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the file; it closes by itself when it was read to its end."""

    def chunks(self) -> Iterator[Chunk]:
        """Yield the file's events in order.

        A chunk ends in the middle of a time that its successor may go on with, so it promises one ms less.
        """
        newest = -1
        for block in self.blocks():
            times = [frame["source_ts"].to_numpy() for frame in (block.trades, block.quotes)]
            newest = max(newest, *(int(np.max(part)) for part in times if part.size)) if any(part.size for part in times) else newest
            if self.kind == OPTIONS:
                yield Chunk(
                    newest - 1,
                    block.trades.select(OPTION_TRADES.names()),
                    block.quotes.select(OPTION_QUOTES.names()),
                    refusals=block.refusals,
                )
            else:
                trades, quotes = block.trades.select(EQUITY_TRADES.names()), block.quotes.select(EQUITY_QUOTES.names())
                yield Chunk(newest - 1, equity_trades=trades, equity_quotes=quotes, refusals=block.refusals)


def with_missing(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Add what a feed does not tell, as null; keep working columns."""
    missing = [pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in frame.columns]
    return frame.with_columns(missing).with_columns(pl.col(name).cast(kind) for name, kind in schema.items())
