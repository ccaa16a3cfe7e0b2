"""Databento's recordings: DBN files of any version, compressed or not, read through the databento package."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any

import databento
import numpy as np
import polars as pl

from flowapp.edge.adapters.base import EQUITY_QUOTES, EQUITY_TRADES, OPTION_QUOTES, OPTION_TRADES, Refusal
from flowapp.edge.adapters.tape import (
    BLOCK_ROWS,
    EQUITIES,
    OPTIONS,
    Block,
    Opened,
    RecordedFile,
    quote_errors,
    split,
    trade_errors,
    with_missing,
)
from flowapp.errors import SourceError
from flowapp.records.identity import EQUITY_PRINT, EQUITY_QUOTE, OPTION_NBBO, OPTION_PRINT, contract_id, file_id, parse_contract

OPTION_DATASET = "OPRA.PILLAR"
EQUITY_DATASETS = (
    "ARCX", "BATS", "BATY", "DBEQ", "EDGA", "EDGX", "EPRL", "EQUS", "IEXG", "MEMX", "XASE", "XBOS", "XCHI", "XCIS", "XNAS", "XNYS", "XPSX",
)  # fmt: skip
TRADES = frozenset({"trades", "tbbo", "tcbbo", "mbp-1", "cmbp-1"})
WITH_QUOTE = frozenset({"tbbo", "tcbbo", "mbp-1", "cmbp-1"})
EVERY_QUOTE = frozenset({"mbp-1", "cmbp-1"})
SAMPLED = frozenset({"cbbo-1s", "cbbo-1m", "bbo-1s", "bbo-1m"})
UNDEFINED_PRICE, UNDEFINED_TIME = 2**63 - 1, 2**64 - 1
PRICE_SCALE, NS_PER_MS = 1e9, 1_000_000
CONSOLIDATED_OPRA = 30
TRADE_ACTION = b"T"
QUOTE_ACTIONS = (b"A", b"C", b"M", b"R", b"T")
QUOTE_COLUMNS: tuple[str, ...] = ("bid", "ask", "bid_size", "ask_size", "bid_venue", "ask_venue")
REPORTING_FACILITIES = frozenset({"FINN", "FINC", "FINY"})
# Consolidated feeds do not tell whether a print was reported to a facility.
COMPOSITE_VENUES = frozenset({"EQUS", "DBEQ"})


def open_dbn(opened: Opened) -> DbnFile:
    """Open a DBN file.

    Raises:
        SourceError: it is no DBN file, or of a dataset or schema without prints or quotes of options or stocks.
    """
    handle = _Handle(opened)
    try:
        store = databento.DBNStore(handle)
        return DbnFile(opened, _kind(opened, str(store.metadata.dataset)), handle, store, _supported(opened, store.schema))
    except SourceError:
        handle.close()
        raise
    except Exception as error:
        handle.close()
        raise SourceError(f"{opened.path} is no DBN file: {error}") from error


class _Handle:
    """The file as databento wants it, but closed when told."""

    def __init__(self, opened: Opened) -> None:
        self.path, self.name, self.nbytes = opened.path, opened.path.name, opened.size_bytes
        self._file = opened.path.open("rb")

    @property
    def reader(self) -> Any:
        """The file at its start."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        self._file.close()


def _kind(opened: Opened, dataset: str) -> str:
    if dataset == OPTION_DATASET:
        return OPTIONS
    if dataset.split(".")[0] in EQUITY_DATASETS:
        return EQUITIES
    raise SourceError(f"{opened.path} is of dataset {dataset}; allowed: {OPTION_DATASET} and US stocks ({', '.join(EQUITY_DATASETS)})")


def _supported(opened: Opened, schema: Any) -> str:
    supported = TRADES | SAMPLED
    if schema is None or str(schema) not in supported:
        named = "no single schema (a live recording)" if schema is None else f"schema {schema}"
        raise SourceError(
            f"{opened.path} has {named}; it carries no prints or quotes that can be read; allowed: {', '.join(sorted(supported))}"
        )
    return str(schema)


class DbnFile(RecordedFile):
    """One DBN file. Its trades carry no sale conditions; `n` and the rows of ids are those of the file."""

    feed = "databento"
    vocabulary = "none"

    def __init__(self, opened: Opened, kind: str, handle: _Handle, store: Any, schema: str) -> None:
        super().__init__(opened, kind)
        self._handle, self._store, self._schema = handle, store, schema
        self._symbols = _symbols(store.metadata.mappings, kind)

    def blocks(self) -> Iterator[Block]:
        """Yield trades and quotes, in blocks of rows."""
        try:
            for rows, cut in self._arrays():
                first = self.rows
                self.rows += len(rows)
                yield self._block(rows, first, cut)
        finally:
            self.close()

    def close(self) -> None:
        self._handle.close()

    def _arrays(self) -> Iterator[tuple[Any, str | None]]:
        """Yield arrays of records; with the last one what is wrong with the file's end, if anything is."""
        arrays = self._store.to_ndarray(count=BLOCK_ROWS)
        kind = arrays._dtype
        while True:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    rows = next(arrays, None)
                    cut = "; ".join(str(warning.message) for warning in caught) or None
                except Exception as error:
                    rows, cut = None, f"{type(error).__name__}: {error}"
            if rows is not None:
                yield rows, cut
            elif cut is not None:
                yield np.empty(0, kind), cut
            if rows is None or cut is not None:
                return

    def _block(self, rows: Any, first: int, cut: str | None) -> Block:
        refusals: list[Refusal] = []
        if cut is not None:
            refusals.append(Refusal(first + len(rows), b"", "cut", f"{self.source} ends in the middle of a record: {cut}"))
        frame = self._named(self._frame(rows, first))
        action = rows["action"] if "action" in rows.dtype.names else np.full(len(rows), TRADE_ACTION)
        is_trade = (action == TRADE_ACTION) & (self._schema in TRADES)
        trades, bad_trades = split(self._trades(frame.filter(pl.Series(is_trade))), trade_errors(self.kind))
        quotes, bad_quotes = split(self._quotes(frame.filter(pl.Series(self._is_quote(rows, action, is_trade)))), quote_errors(self.kind))
        refusals += [Refusal(n, rows[n - first].tobytes(), code, text) for n, code, text in (*bad_trades, *bad_quotes)]
        return Block(trades, quotes, tuple(refusals))

    def _is_quote(self, rows: Any, action: Any, is_trade: Any) -> Any:
        if self._schema in SAMPLED:
            return np.ones(len(rows), bool)
        if self._schema not in EVERY_QUOTE:
            return np.zeros(len(rows), bool)
        quote = np.isin(action, QUOTE_ACTIONS) & ~is_trade
        if self._schema == "mbp-1" and self.kind == OPTIONS:
            # The other publishers' rows are the best of one venue.
            quote &= rows["publisher_id"] == CONSOLIDATED_OPRA
        return quote

    def _frame(self, rows: Any, first: int) -> pl.DataFrame:
        at = rows["ts_recv"] if self._schema in SAMPLED else rows["ts_event"]
        columns: dict[str, Any] = {
            "n": np.arange(first, first + len(rows)),
            "feed_ts_ns": _times(at),
            "instrument": rows["instrument_id"].astype(np.int64),
            "publisher": rows["publisher_id"].astype(np.int64),
            "price": _prices(rows["price"]),
            "size": rows["size"].astype(np.int64),
        }
        if "bid_px_00" in rows.dtype.names:
            columns |= {"bid": _prices(rows["bid_px_00"]), "ask": _prices(rows["ask_px_00"])}
            columns |= {"bid_size": rows["bid_sz_00"].astype(np.int64), "ask_size": rows["ask_sz_00"].astype(np.int64)}
        for side in ("bid", "ask"):
            if f"{side}_pb_00" in rows.dtype.names:
                columns[f"{side}_venue"] = _venues(rows[f"{side}_pb_00"])
        return pl.DataFrame(columns).with_columns(pl.col("feed_ts_ns").floordiv(NS_PER_MS).alias("source_ts"))

    def _named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Add the instrument that the metadata's symbology gives an id on the day of the record."""
        day = pl.from_epoch(pl.col("source_ts"), "ms").dt.date().alias("_day")
        pairs = frame.select("n", "instrument", day).join(self._symbols, on="instrument", how="left")
        valid = pairs.filter((pl.col("_day") >= pl.col("first")) & (pl.col("_day") < pl.col("end"))).unique("n", keep="first")
        named = frame.join(valid.select("n", "name", "symbol"), on="n", how="left", maintain_order="left")
        text = pl.coalesce(pl.col("symbol"), pl.format("id {}", pl.col("instrument"))).alias("_named")
        column = "option_contract_id" if self.kind == OPTIONS else "underlying_id"
        return named.with_columns(text, pl.Series("exchange", _venues(frame["publisher"].to_numpy()), pl.String)).rename({"name": column})

    def _trades(self, frame: pl.DataFrame) -> pl.DataFrame:
        kind = OPTION_PRINT if self.kind == OPTIONS else EQUITY_PRINT
        frame = frame.with_columns(
            file_id(self.feed, self.digest, kind, pl.col("n")).alias("trace_id"), pl.lit([], pl.List(pl.String)).alias("conditions")
        )
        if self._schema in WITH_QUOTE:
            names: Mapping[str, str] = {name: f"q_{name}" for name in QUOTE_COLUMNS if name in frame.columns}
            frame = frame.rename(names).with_columns(pl.col("source_ts").alias("q_ts"), pl.col("feed_ts_ns").alias("q_ts_ns"))
        if self.kind == OPTIONS:
            return with_missing(frame, OPTION_TRADES)
        venue = pl.col("exchange")
        reported = venue.is_in(sorted(REPORTING_FACILITIES))
        flag = pl.when(~venue.is_in(sorted(COMPOSITE_VENUES))).then(reported)
        return with_missing(
            frame.with_columns(flag.alias("off_exchange_flag"), pl.when(reported).then(venue).alias("trf_id")), EQUITY_TRADES
        )

    def _quotes(self, frame: pl.DataFrame) -> pl.DataFrame:
        kind, schema = (OPTION_NBBO, OPTION_QUOTES) if self.kind == OPTIONS else (EQUITY_QUOTE, EQUITY_QUOTES)
        how = pl.lit("sampled" if self._schema in SAMPLED else "event").alias("quote_source")
        return with_missing(frame.with_columns(file_id(self.feed, self.digest, kind, pl.col("n")).alias("trace_id"), how), schema)


def _prices(fixed: Any) -> pl.Series:
    # NumPy divides; Polars would multiply by the reciprocal, which is not exact.
    values = pl.Series(fixed.astype(np.int64) / PRICE_SCALE)
    return pl.select(pl.when(pl.Series(fixed != UNDEFINED_PRICE)).then(values)).to_series()


def _times(ns: Any) -> pl.Series:
    values = pl.Series(ns.astype(np.uint64))
    return pl.select(pl.when(values != UNDEFINED_TIME).then(values).cast(pl.Int64, strict=False)).to_series()


@cache
def _venue(publisher: int) -> str | None:
    if publisher == 0:
        return None
    try:
        return str(databento.Publisher.from_int(publisher).venue.value)
    except ValueError:
        return str(publisher)


def _venues(publishers: Any) -> pl.Series:
    distinct, place = np.unique(publishers, return_inverse=True)
    return pl.Series([_venue(int(publisher)) for publisher in distinct], dtype=pl.String).gather(place)


def _symbols(mappings: dict[str, list[dict[str, Any]]], kind: str) -> pl.DataFrame:
    """Return the metadata's symbology: instrument id, symbol, canonical name, days from and before which it holds."""
    rows = []
    for symbol, intervals in mappings.items():
        name = _canonical(symbol) if kind == OPTIONS else symbol.strip().upper().replace(" ", ".")
        for interval in intervals:
            if str(interval["symbol"]).isdigit():
                first, end = interval["start_date"], interval["end_date"]
                # A mapping of a single day may bear it as its end too.
                rows.append((int(interval["symbol"]), symbol, name, first, end if end > first else first + timedelta(days=1)))
    kinds = {"instrument": pl.Int64, "symbol": pl.String, "name": pl.String, "first": pl.Date, "end": pl.Date}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def _canonical(symbol: str) -> str | None:
    contract = parse_contract(symbol)
    return None if contract is None else contract_id(*contract)
