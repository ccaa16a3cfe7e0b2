"""Tapes for tests: logs of option prints and ticks, as the edge would have written them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from flowapp import topics
from flowapp.core.fold import OFFSET, PARTITION
from flowapp.core.options import stamp
from flowapp.core.rules import OptionRules
from flowapp.records.schemas import topic_frame_schema
from flowapp.settings import Settings

SCHEMA = pl.Schema({**topic_frame_schema(topics.OPTIONS_PRINTS), PARTITION: pl.Int64(), OFFSET: pl.Int64()})
START_MS = 1_750_000_000_000
RUN = "run-1"

PRINT: Mapping[str, Any] = {
    "feed": "synthetic", "run": RUN, "trade_date": "2025-06-15", "session": "regular", "option_contract_id": "AAPL-2025-06-20-200-C",
    "underlying_id": "AAPL", "root": "AAPL", "expiry": "2025-06-20", "strike": 200.0, "option_type": "call", "multiplier": 100,
    "adjusted": False, "settlement": "PM", "expires_at": 1_750_449_600_000, "price": 2.0, "size": 10, "exchange": "CBOE",
    "conditions": ["FILL"], "condition_tag": "electronic", "may_alert": True, "may_sign": True, "may_baseline": True, "is_weak": False,
    "is_cancel": False, "is_excluded": False, "is_sweep": False, "is_multi_leg": False, "conditions_unavailable": False,
    "conditions_unmapped": False, "arrived_late": False, "time_suspect": False, "nbbo_bid": 1.9, "nbbo_ask": 2.0, "nbbo_bid_size": 10,
    "nbbo_ask_size": 20, "quote_source": "event", "quote_tie": False, "underlying_bid": 199.9, "underlying_ask": 200.1,
    "signal_reasons": [],
}  # fmt: skip


def option_print(ts: int, **values: Any) -> dict[str, Any]:
    """Return a print at `ts` whose quotes are as fresh as can be."""
    contract = values.get("option_contract_id")
    own: dict[str, Any] = {}
    if contract is not None:
        root, *_, strike, right = contract.split("-")
        own = {"root": root, "underlying_id": root, "strike": float(strike), "option_type": "call" if right == "C" else "put"}
    return {**PRINT, "source_ts": ts, "ingest_ts": ts, "nbbo_ts": ts, "quote_feed_ts": ts, "underlying_ts": ts, **own, **values}


def tick(w: int, **values: Any) -> dict[str, Any]:
    """Return a tick."""
    return {"w": w, "feed": "synthetic", "run": RUN, **values}


def tape(rows: Iterable[Mapping[str, Any]], partition: int = 0) -> pl.DataFrame:
    """Return a log of prints and ticks; offset, seq and id by place where not given."""
    numbered = [
        {"seq": place + 1, OFFSET: place, PARTITION: partition}
        | ({} if "w" in row else {"trace_id": f"synthetic-1-test-op-{place}"})
        | dict(row)
        for place, row in enumerate(rows)
    ]
    return pl.DataFrame(numbered, schema=SCHEMA)


def stamped(frame: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """Return a log as an edge with these settings stamps it."""
    return stamp(frame, OptionRules.of(settings)).select(SCHEMA.names())


def with_ticks(prints: pl.DataFrame, tick_ms: int, wait_ms: int = 1_500, only_final: bool = False) -> pl.DataFrame:
    """Put ticks between prints in order of arrival and flag what is late; the last tick stands `wait_ms` after the newest print."""
    ts = prints["source_ts"].to_numpy()
    newest = np.maximum.accumulate(ts)
    w = (newest - 1) // tick_ms * tick_ms
    before = np.concatenate(([w[0] - 1], w[:-1]))
    places = np.flatnonzero(w > before)[1:] if not only_final else np.zeros(0, np.int64)
    final = -(-(int(newest[-1]) + wait_ms) // tick_ms) * tick_ms
    last_w = np.full(ts.size, -1)
    if places.size:
        seen = np.searchsorted(places, np.arange(ts.size), side="right")
        last_w = np.where(seen > 0, w[places][seen - 1], -1)
    ticks = pl.DataFrame({"w": np.append(w[places], final), "place": np.append(places, ts.size) - 0.5}).with_columns(
        pl.lit("synthetic").alias("feed"), pl.lit(RUN).alias("run")
    )
    late = pl.Series("arrived_late", ts <= last_w)
    flagged = prints.with_columns(late, pl.Series("place", np.arange(ts.size, dtype=np.float64)))
    log = pl.concat([flagged, ticks], how="diagonal").sort("place", maintain_order=True)
    numbered = log.with_columns(
        pl.int_range(pl.len()).alias(OFFSET), pl.int_range(1, pl.len() + 1).alias("seq"), pl.lit(0).alias(PARTITION)
    )
    return (
        numbered.with_columns(pl.col("signal_reasons").fill_null([]), pl.col("conditions").fill_null([]))
        .select(SCHEMA.names())
        .cast(SCHEMA)
    )


def random_prints(
    seed: int,
    count: int,
    *,
    contracts: int = 12,
    span_ms: int | None = None,
    disorder_ms: int = 0,
    late_share: float = 0.0,
    late_ms: int = 2_000,
    underlyings: Sequence[str] = ("SPY", "AAPL"),
    etf_share: float = 0.4,
) -> pl.DataFrame:
    """Return prints in order of arrival: bursts, ties of time, every side, every policy, some out of order and some far too late."""
    rng = np.random.default_rng(seed)
    span_ms = span_ms or count * 20
    bursts = np.sort(rng.integers(0, span_ms, max(count // 6, 1)))
    ts = START_MS + np.sort(rng.choice(bursts, count) + rng.integers(0, 300, count))
    place = (ts + rng.integers(0, disorder_ms, count) if disorder_ms else np.arange(count)).astype(np.float64)
    late = rng.random(count) < late_share
    place = np.where(late, place + (rng.integers(1, late_ms, count) if disorder_ms else rng.integers(1, max(count // 10, 2), count)), place)
    order = np.argsort(place, kind="stable")
    ts = ts[order]
    underlying = np.array(underlyings)[(rng.random(count) > etf_share).astype(int) % len(underlyings)]
    strike = 100 + 5 * (rng.integers(0, contracts, count) // 2)
    right = rng.integers(0, 2, count)
    bid = np.round(rng.uniform(0.5, 20, count), 2)
    ask = np.round(bid + rng.choice([-0.05, 0.0, 0.01, 0.05, 0.2, 1.0], count, p=[0.02, 0.03, 0.15, 0.3, 0.4, 0.1]), 2)
    where = rng.choice([-0.4, 0.0, 0.05, 0.5, 0.95, 1.0, 1.4], count)
    price = np.round(np.maximum(bid + where * (ask - bid), 0.01), 2)
    size = rng.choice([1, 3, 10, 40, 200, 700], count, p=[0.2, 0.2, 0.25, 0.2, 0.1, 0.05])
    age = rng.choice([0, 5, 400, 1000, 1001, 1500, 1501, 5000], count, p=[0.3, 0.3, 0.2, 0.04, 0.04, 0.04, 0.04, 0.04])
    policy = rng.choice(len(_POLICIES), count, p=_POLICY_SHARES)
    frame = pl.DataFrame(
        {"source_ts": ts, "n": np.arange(count), "policy": policy, "underlying_id": underlying, "strike": strike.astype(float)}
    )
    missing = rng.random(count) < 0.04
    return (
        frame.join(_POLICY_FRAME, on="policy", how="left", maintain_order="left")
        .with_columns(
            pl.Series("right", np.array(["C", "P"])[right]), pl.Series("price", price), pl.Series("size", size),
            pl.Series("nbbo_bid", bid), pl.Series("nbbo_ask", ask), pl.Series("age", age), pl.Series("missing", missing),
            pl.Series("exchange", np.array(["CBOE", "ISE", "PHLX", "BOX"])[rng.integers(0, 4, count)]),
            pl.Series("quote_source", np.array(["event", "sampled", "with_trade"])[rng.choice(3, count, p=[0.6, 0.3, 0.1])]),
            pl.Series("time_suspect", rng.random(count) < 0.003),
            pl.Series("nbbo_bid_size", rng.integers(0, 500, count)), pl.Series("nbbo_ask_size", rng.integers(0, 500, count)),
            pl.Series("multiplier", rng.choice([100, 10], count, p=[0.97, 0.03])),
        )
        .with_columns(
            pl.col("underlying_id").alias("root"), pl.lit("2025-06-20").alias("expiry"),
            pl.format("{}-2025-06-20-{}-{}", "underlying_id", pl.col("strike").cast(pl.Int64), "right").alias("option_contract_id"),
            pl.when(pl.col("right") == "C").then(pl.lit("call")).otherwise(pl.lit("put")).alias("option_type"),
            pl.format("synthetic-{}-test-op-{}", pl.lit(seed), "n").alias("trace_id"), pl.col("source_ts").alias("ingest_ts"),
            *(pl.when(~pl.col("missing")).then(pl.col(name)).alias(name) for name in _QUOTE),
            pl.when(~pl.col("missing")).then(pl.col("source_ts") - pl.col("age")).alias("nbbo_ts"),
            (pl.col("source_ts") - pl.col("age") // 2).alias("quote_feed_ts"),
            (pl.col("source_ts") - pl.col("age") // 3).alias("underlying_ts"),
            pl.lit([], pl.List(pl.String)).alias("signal_reasons"), pl.lit(False).alias("arrived_late"),
            *(pl.lit(PRINT[name]).alias(name) for name in _CONSTANTS),
        )
        .with_columns(*(pl.lit(None, kind).alias(name) for name, kind in SCHEMA.items() if name not in _MADE))
        .select(SCHEMA.names())
        .cast(SCHEMA)
    )  # fmt: skip


_CONSTANTS = (
    "feed",
    "run",
    "trade_date",
    "session",
    "adjusted",
    "settlement",
    "expires_at",
    "underlying_bid",
    "underlying_ask",
    "quote_tie",
)
_QUOTE = ("nbbo_bid", "nbbo_ask", "nbbo_bid_size", "nbbo_ask_size")
_FLAGS = (
    "conditions", "condition_tag", "may_alert", "may_sign", "may_baseline", "is_weak", "is_cancel", "is_excluded", "is_sweep",
    "is_multi_leg",
)  # fmt: skip
_POLICIES: tuple[tuple[float, tuple[Any, ...]], ...] = (
    (0.66, (["FILL"], "electronic", True, True, True, False, False, False, False, False)),
    (0.10, (["SWEEP"], "sweep", True, True, True, False, False, False, True, False)),
    (0.06, (["a"], "auction", True, True, True, True, False, False, False, False)),
    (0.06, (["f"], "multi_leg", False, False, False, False, False, False, False, True)),
    (0.04, (["c"], "cross", False, False, True, False, False, False, False, False)),
    (0.03, ([], None, True, True, True, None, None, None, None, None)),
    (0.02, (["A"], "cancel", False, False, False, False, True, False, False, False)),
    (0.03, (["u"], "compression", False, False, False, False, False, True, False, False)),
)
_POLICY_SHARES = [share for share, _ in _POLICIES]
_POLICY_FRAME = pl.DataFrame(
    [{"policy": place, **dict(zip(_FLAGS, flags, strict=True))} for place, (_, flags) in enumerate(_POLICIES)],
    schema={"policy": pl.Int64, **{name: SCHEMA[name] for name in _FLAGS}},
)
_MADE = frozenset(
    {
        "source_ts", "underlying_id", "strike", "price", "size", "nbbo_bid", "nbbo_ask", "exchange", "quote_source", "time_suspect",
        "nbbo_bid_size", "nbbo_ask_size", "multiplier", "root", "expiry", "option_contract_id", "option_type", "trace_id", "ingest_ts",
        "nbbo_ts", "quote_feed_ts", "underlying_ts", "signal_reasons", "arrived_late", *_CONSTANTS, *_FLAGS,
    }
)  # fmt: skip
