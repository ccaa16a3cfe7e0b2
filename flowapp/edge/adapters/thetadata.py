"""ThetaData's trade-with-quote files: CSV of option or stock prints, each with the NBBO at the trade."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import polars as pl

from flowapp.edge.adapters.base import EQUITY_QUOTES, EQUITY_TRADES, OPTION_QUOTES, OPTION_TRADES, Refusal
from flowapp.edge.adapters.tape import BLOCK_ROWS, EQUITIES, OPTIONS, Block, Opened, RecordedFile, split, trade_errors, with_missing
from flowapp.errors import SourceError
from flowapp.records.identity import EQUITY_PRINT, OPTION_PRINT, contract_id, file_id

NEW_YORK = "America/New_York"
NO_CONDITION = "255"
NEEDED = (
    "trade_timestamp", "quote_timestamp", "condition", "size", "exchange", "price", "bid_size", "bid_exchange", "bid", "ask_size",
    "ask_exchange", "ask",
)  # fmt: skip
CONTRACT = ("symbol", "expiration", "strike", "right")
CONDITIONS = ("condition", "ext_condition1", "ext_condition2", "ext_condition3", "ext_condition4")
RIGHTS = {"CALL": "C", "PUT": "P", "C": "C", "P": "P"}
# The vendor's exchange ids that report options or stocks.
VENUES = {
    1: "NQEX", 2: "NQAD", 3: "NYSE", 4: "AMEX", 5: "CBOE", 6: "ISEX", 7: "PACF", 8: "CINC", 9: "PHIL", 10: "OPRA", 11: "BOST", 12: "NQNM",
    13: "NQSC", 14: "NQBB", 15: "NQPK", 17: "CHIC", 22: "MRCY", 29: "NQBS", 31: "GEMI", 42: "C2", 43: "MIAX", 46: "EMLD", 47: "NQBX",
    57: "NQNX", 58: "BTRF", 59: "NTRF",
}  # fmt: skip
REPORTING_FACILITIES = ("57", "58", "59")
_SYMBOL_IN_NAME = re.compile(r"([A-Z][A-Z0-9.]{0,9})(?:[_ -].*)?\.csv")
_TIME = "%Y-%m-%d %H:%M:%S%.f"
_MICRO = 1_000_000


def is_thetadata(header: bytes) -> bool:
    """Tell by its first line whether a CSV is one of these."""
    return b"trade_timestamp" in header and b"," in header


def open_thetadata(opened: Opened, header: bytes) -> ThetaDataFile:
    """Open a trade-with-quote file.

    Raises:
        SourceError: columns are missing, or nothing says whose prints they are.
    """
    columns = [name.strip().strip('"') for name in header.decode("utf-8", "replace").strip().split(",")]
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise SourceError(f"{opened.path} lacks the columns {', '.join(missing)} of a ThetaData trade-with-quote file")
    if "right" in columns or "strike" in columns:
        missing = [name for name in CONTRACT if name not in columns]
        if missing:
            raise SourceError(f"{opened.path} lacks the columns {', '.join(missing)} that name an option")
        return ThetaDataFile(opened, OPTIONS, columns, None)
    symbol = None
    if "symbol" not in columns:
        found = _SYMBOL_IN_NAME.fullmatch(opened.path.name)
        if found is None:
            raise SourceError(
                f"{opened.path} names no stock: it has no column symbol; begin the file's name with it, as in AAPL_trades.csv"
            )
        symbol = found.group(1)
    return ThetaDataFile(opened, EQUITIES, columns, symbol)


class ThetaDataFile(RecordedFile):
    """One CSV file; `n` and the rows of ids count lines after the header. Its `sequence` wraps and is no identity."""

    feed = "thetadata"

    def __init__(self, opened: Opened, kind: str, columns: list[str], symbol: str | None) -> None:
        super().__init__(opened, kind)
        self.vocabulary = "thetadata" if kind == OPTIONS else "thetadata_equity"
        self._columns, self._symbol = columns, symbol
        self._size_bytes = opened.size_bytes
        self._contracts: dict[tuple[str | None, ...], str | None] = {}

    def blocks(self) -> Iterator[Block]:
        """Yield prints with their quotes, in blocks of lines."""
        with self.path.open("rb") as file:
            read_bytes = len(file.readline())
            while lines := [line for _, line in zip(range(BLOCK_ROWS), file, strict=False)]:
                first = self.rows
                self.rows += len(lines)
                read_bytes += sum(map(len, lines))
                self.progress = read_bytes / self._size_bytes
                yield self._block(lines, first)

    def _block(self, lines: list[bytes], first: int) -> Block:
        commas = len(self._columns) - 1
        whole = [i for i, line in enumerate(lines) if line.count(b",") == commas]
        odd = [] if len(whole) == len(lines) else sorted(set(range(len(lines))) - set(whole))
        refusals = [Refusal(first + i, lines[i], *self._why(lines[i], commas)) for i in odd if lines[i].strip()]
        text = b"".join(lines[i] if lines[i].endswith(b"\n") else lines[i] + b"\n" for i in whole)
        frame = self._frame(text, whole, first)
        trades, bad = split(frame, trade_errors(self.kind))
        refusals += [Refusal(n, lines[n - first].rstrip(b"\r\n"), code, why) for n, code, why in bad]
        if self.kind == OPTIONS:
            return Block(with_missing(trades, OPTION_TRADES), pl.DataFrame(schema=OPTION_QUOTES), tuple(refusals))
        return Block(with_missing(trades, EQUITY_TRADES), pl.DataFrame(schema=EQUITY_QUOTES), tuple(refusals))

    def _why(self, line: bytes, commas: int) -> tuple[str, str]:
        if not line.endswith(b"\n"):
            return "cut", f"{self.source} ends in the middle of a line: {line.count(b',') + 1} of {commas + 1} fields"
        return "bad_line", f"the line had {line.count(b',') + 1} fields; allowed: {commas + 1}"

    def _frame(self, text: bytes, whole: list[int], first: int) -> pl.DataFrame:
        kinds = dict.fromkeys(self._columns, pl.String)
        raw = pl.DataFrame(schema=kinds)
        if text:
            raw = pl.read_csv(
                io.BytesIO(text),
                has_header=False,
                new_columns=self._columns,
                schema_overrides=kinds,
                encoding="utf8-lossy",
                infer_schema=False,
            )
        frame = raw.with_columns(pl.all().str.strip_chars(' "\r')).with_columns(pl.Series("n", whole, pl.Int64) + first)
        frame = self._instrument(frame)
        kind = OPTION_PRINT if self.kind == OPTIONS else EQUITY_PRINT
        size = pl.col("size").cast(pl.Float64, strict=False)
        shares = size.floor().cast(pl.Int64, strict=False)
        micro = ((size - size.floor()) * _MICRO).round().cast(pl.Int64, strict=False)
        return frame.select(
            "n", "_named", pl.col("^(option_contract_id|underlying_id)$"),
            _time("trade_timestamp").alias("source_ts"), pl.lit(None, pl.Int64).alias("feed_ts_ns"),
            file_id(self.feed, self.digest, kind, pl.col("n")).alias("trace_id"),
            pl.col("price").cast(pl.Float64, strict=False), shares.alias("size"), pl.when(micro > 0).then(micro).alias("size_frac_micro"),
            _venue("exchange").fill_null("unknown").alias("exchange"), self._conditions().alias("conditions"),
            pl.col("exchange").is_in(REPORTING_FACILITIES).alias("off_exchange_flag"),
            pl.when(pl.col("exchange").is_in(REPORTING_FACILITIES)).then(_venue("exchange")).alias("trf_id"),
            *self._quote(),
        )  # fmt: skip

    def _instrument(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self.kind == EQUITIES:
            name = pl.lit(self._symbol) if self._symbol else pl.col("symbol")
            named = name.str.to_uppercase()
            return frame.with_columns(pl.when(named != "").then(named).alias("underlying_id"), name.alias("_named"))
        parts = frame.select(CONTRACT)
        ids = [self._contract(row) for row in parts.iter_rows()]
        named = pl.concat_str(pl.col(CONTRACT).fill_null(""), separator=" ")
        return frame.with_columns(pl.Series("option_contract_id", ids, pl.String), named.alias("_named"))

    def _contract(self, row: tuple[str | None, ...]) -> str | None:
        if row not in self._contracts:
            self._contracts[row] = _contract_id(*row)
        return self._contracts[row]

    def _conditions(self) -> pl.Expr:
        codes = pl.concat_list(name for name in CONDITIONS if name in self._columns)
        said = codes.list.eval(pl.element().filter(pl.element().is_not_null() & (pl.element() != NO_CONDITION) & (pl.element() != "")))
        return said.list.unique(maintain_order=True)

    def _quote(self) -> list[pl.Expr]:
        """Return the quote's columns; a bid of nothing is a market for an option, for a stock there is then none."""
        bid, ask = (pl.col(name).cast(pl.Float64, strict=False) for name in ("bid", "ask"))
        there = ask.is_finite() & (ask > 0) & bid.is_finite() & ((bid >= 0) if self.kind == OPTIONS else (bid > 0))
        sizes = [pl.col(f"{side}_size").cast(pl.Int64, strict=False).alias(f"q_{side}_size") for side in ("bid", "ask")]
        venues = [_venue(f"{side}_exchange").alias(f"q_{side}_venue") for side in ("bid", "ask")]
        values = [pl.when(there).then(price).alias(f"q_{side}") for side, price in (("bid", bid), ("ask", ask))]
        return [_time("quote_timestamp").alias("q_ts"), pl.lit(None, pl.Int64).alias("q_ts_ns"), *values, *sizes, *venues]


def _time(column: str) -> pl.Expr:
    """Read times with an offset, or without one as New York's, to ms UTC."""
    text = pl.col(column).str.replace("T", " ", literal=True)
    offset = text.str.contains(r"[+-]\d{2}:?\d{2}$|Z$")
    zoned = text.str.replace("Z$", "+00:00").str.to_datetime(_TIME + "%:z", time_unit="ms", time_zone="UTC", strict=False)
    local = text.str.to_datetime(_TIME, time_unit="ms", strict=False).dt.replace_time_zone(
        NEW_YORK, ambiguous="earliest", non_existent="null"
    )
    return pl.when(offset).then(zoned.dt.epoch("ms")).otherwise(local.dt.epoch("ms"))


def _venue(column: str) -> pl.Expr:
    code = pl.col(column)
    return code.replace_strict({str(number): name for number, name in VENUES.items()}, default=code, return_dtype=pl.String)


def _contract_id(symbol: str | None, expiration: str | None, strike: str | None, right: str | None) -> str | None:
    day = (expiration or "").replace("-", "")
    try:
        value = float(strike or "")
    except ValueError:
        return None
    letter = RIGHTS.get((right or "").upper())
    if not symbol or letter is None or not re.fullmatch(r"[0-9]{8}", day) or not 0 < value < 1e7:
        return None
    return contract_id(symbol.upper(), f"{day[:4]}-{day[4:6]}-{day[6:]}", value, letter)
