from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowapp.core.placement import OPTION_QUOTE, is_quoted, is_stale, side_code, side_text
from flowapp.core.rules import REFERENCE, STANDARD, RuleSet

SCHEMA = {
    "price": pl.Float64, "nbbo_bid": pl.Float64, "nbbo_ask": pl.Float64, "nbbo_ts": pl.Int64, "source_ts": pl.Int64,
    "quote_source": pl.String, "quote_feed_ts": pl.Int64,
}  # fmt: skip
MAX_AGE_MS = 1500


def sides(rules: RuleSet, rows: list[dict[str, Any]], *, stale_first: bool = False) -> list[str]:
    frame = pl.DataFrame([{"nbbo_ts": 0, "source_ts": 0, **row} for row in rows], schema=SCHEMA)
    ts = pl.col("source_ts")
    quoted, stale = is_quoted(rules, OPTION_QUOTE, ts), is_stale(rules, OPTION_QUOTE, ts, MAX_AGE_MS)
    code = side_code(rules, pl.col("price"), OPTION_QUOTE, quoted, stale, stale_first=stale_first)
    return frame.select(side_text(code)).to_series().to_list()


def at_prices(rules: RuleSet, bid: float | None, ask: float | None, prices: list[float]) -> str:
    return " ".join(sides(rules, [{"price": price, "nbbo_bid": bid, "nbbo_ask": ask} for price in prices]))


@pytest.mark.parametrize(
    ("bid", "ask", "prices", "expected"),
    [
        (1.0, 1.2, [0.98, 0.989, 0.99, 1.0, 1.01, 1.0101, 1.1, 1.18, 1.19, 1.2, 1.21, 1.2101, 1.22], "BB BB B B B MID MID MID A A A AA AA"),
        (10, 11, [9.94, 9.95, 10, 10.05, 10.06, 10.5, 10.94, 10.95, 11, 11.05, 11.06], "BB B B B MID MID MID A A A AA"),
        (0, 0, [1.0], "MISSING"),
        (1.0, 1.0, [0.99, 1.0, 1.005, 1.02], "A A A AA"),
        (1.1, 1.0, [0.98, 1.0, 1.05, 1.1, 1.2], "BB A AA AA AA"),
        (1.0, 1.02, [0.98, 0.99, 1.0, 1.005, 1.01, 1.015, 1.02, 1.03, 1.031], "BB B B B A A A A AA"),
    ],
)  # fmt: skip
def test_the_reference_places_prints_as_its_table_says(bid: float, ask: float, prices: list[float], expected: str) -> None:
    assert at_prices(REFERENCE, bid, ask, prices) == expected


def test_the_reference_age_counts_both_ways_and_the_limit_is_fresh() -> None:
    rows = [{"price": 10.5, "nbbo_bid": 10, "nbbo_ask": 11, "nbbo_ts": 1000, "source_ts": ts} for ts in (2500, 2501, -500, -501)]
    assert sides(REFERENCE, rows) == ["MID", "STALE", "MID", "STALE"]


def test_standard_gives_a_locked_market_a_midpoint_and_a_crossed_one_no_side() -> None:
    assert at_prices(STANDARD, 1.0, 1.0, [0.99, 1.0, 1.01]) == "BB MID AA"
    assert at_prices(STANDARD, 1.1, 1.0, [0.98, 1.0, 1.05, 1.2]) == "MISSING MISSING MISSING MISSING"


def test_standard_keeps_the_tolerances_of_bid_and_ask_apart() -> None:
    assert at_prices(STANDARD, 1.0, 1.01, [0.99, 1.0, 1.004, 1.005, 1.006, 1.01, 1.02]) == "BB B B MID A A AA"
    assert at_prices(STANDARD, 10, 11, [9.94, 9.95, 10.05, 10.06, 10.94, 10.95, 11.06]) == "BB B B MID MID A AA"


@pytest.mark.parametrize(
    ("source", "nbbo_ts", "feed_ts", "expected"),
    [
        ("with_trade", 0, None, "A"),
        ("with_trade", 20_000, None, "A"),
        ("event", 0, 8_500, "A"),
        ("event", 0, 8_499, "STALE"),
        ("event", 8_500, None, "A"),
        ("event", 8_499, None, "STALE"),
        ("sampled", 8_500, 10_000, "A"),
        ("sampled", 8_499, 10_000, "STALE"),
        (None, 8_499, 10_000, "STALE"),
        ("event", 10_001, 10_001, "MISSING"),
        ("sampled", None, None, "MISSING"),
        ("with_trade", None, None, "A"),
    ],
)
def test_standard_staleness_follows_how_the_quote_was_observed(
    source: str | None, nbbo_ts: int | None, feed_ts: int | None, expected: str
) -> None:
    row = {
        "price": 11,
        "nbbo_bid": 10,
        "nbbo_ask": 11,
        "source_ts": 10_000,
        "nbbo_ts": nbbo_ts,
        "quote_source": source,
        "quote_feed_ts": feed_ts,
    }
    assert sides(STANDARD, [row]) == [expected]


def test_what_is_no_quote_is_missing_under_both_rule_sets() -> None:
    nan, inf = float("nan"), float("inf")
    rows: list[dict[str, Any]] = [
        {"price": 1.0},
        {"price": 1.0, "nbbo_bid": 1.0, "nbbo_ask": None},
        {"price": 1.0, "nbbo_bid": nan, "nbbo_ask": 1.1},
        {"price": 1.0, "nbbo_bid": 1.0, "nbbo_ask": inf},
        {"price": nan, "nbbo_bid": 1.0, "nbbo_ask": 1.1},
        {"price": None, "nbbo_bid": 1.0, "nbbo_ask": 1.1},
    ]
    for rules in (REFERENCE, STANDARD):
        assert sides(rules, rows) == ["MISSING"] * len(rows)


def test_packets_test_age_before_the_quote_itself() -> None:
    row = {"price": 1.0, "nbbo_bid": 0.0, "nbbo_ask": 0.0, "nbbo_ts": 0, "source_ts": 5_000}
    assert sides(REFERENCE, [row]) == ["MISSING"]
    assert sides(REFERENCE, [row], stale_first=True) == ["STALE"]


@given(st.floats(0.01, 5000), st.floats(0.0001, 100), st.floats(-0.5, 1.5))
def test_standard_is_symmetric_about_the_midpoint(bid: float, spread: float, where: float) -> None:
    ask = bid + spread
    mirror = {"AA": "BB", "A": "B", "MID": "MID", "B": "A", "BB": "AA"}
    price = bid + where * spread
    mirrored = bid + ask - price
    for rule_price, other in ((price, mirrored), (mirrored, price)):
        one, two = at_prices(STANDARD, bid, ask, [rule_price, other]).split()
        tolerance = min(max(0.01, 0.05 * spread), 0.49 * spread)
        edges = [bid - tolerance, bid + tolerance, ask - tolerance, ask + tolerance]
        if min(abs(rule_price - edge) for edge in edges) > 1e-6:
            assert two == mirror[one]
