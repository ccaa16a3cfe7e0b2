"""The synthetic market: what every tape of it must be."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from datetime import date

import numpy as np
import polars as pl
import pytest

from flowapp.simulator import symbols
from flowapp.simulator.calendar import is_trading_day
from flowapp.simulator.generator import VERSION, Market, Tape
from flowapp.simulator.market import price_tick
from flowapp.simulator.scenarios import CONDITION_WORDS, OPTION_VENUES, PROFILES, resolve

START = 1_767_366_000_000  # Friday 2026-01-02, 10:00 in New York
DENSE = 400.0
TICKS = 60
KINDS = ("option_trades", "option_quotes", "equity_trades", "equity_quotes")


def digest(tape: Tape) -> str:
    out = io.BytesIO()
    for kind in KINDS:
        getattr(tape, kind).write_ndjson(out)
    return hashlib.sha256(out.getvalue()).hexdigest()


def stacked(tapes: list[Tape]) -> Tape:
    frames = {kind: pl.concat([getattr(tape, kind) for tape in tapes]) for kind in KINDS}
    return Tape(tapes[0].from_ts, tapes[-1].upto_ts, **frames)


@pytest.fixture(scope="module", params=sorted(PROFILES))
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tape(profile: str) -> Tape:
    return Market(3, profile, profile, START, DENSE).ticks(0, TICKS)


@pytest.fixture(scope="module")
def truth(profile: str) -> pl.DataFrame:
    return Market(3, profile, profile, START, DENSE).truth(0, TICKS)


def quoted(tape: Tape) -> pl.DataFrame:
    """Option prints with the newest quote of their contract before them in feed order."""
    quotes = tape.option_quotes.rename({"n": "quote_n", "source_ts": "quote_ts"}).with_columns(n=pl.col("quote_n"))
    wanted = quotes.select("n", "quote_n", "quote_ts", "option_contract_id", "bid", "ask", "bid_size", "ask_size")
    return tape.option_trades.join_asof(wanted, on="n", by="option_contract_id", check_sortedness=False)


def word(name: str) -> pl.Expr:
    return pl.col("conditions").list.first() == name


# The function


@pytest.mark.parametrize("rate", [None, 0.4, 700.0])
def test_a_tape_does_not_depend_on_how_many_ticks_are_made_at_once(profile: str, rate: float | None) -> None:
    market = Market(5, profile, profile, START, rate)
    whole = digest(market.ticks(0, 24))
    for size in (1, 5, 24):
        parts = [market.ticks(first, min(size, 24 - first)) for first in range(0, 24, size)]
        assert digest(stacked(parts)) == whole


def test_a_version_of_the_generator_keeps_its_tape() -> None:
    tape = Market(1, "active", "active", START).ticks(0, 60)
    rows = [row for kind in KINDS for row in getattr(tape, kind).rows()]
    assert (VERSION, len(rows)) == (1, 1751)
    assert hashlib.sha256("\n".join(map(repr, rows)).encode()).hexdigest()[:16] == "7bb800b6002ade64"


def test_ticks_can_be_had_from_the_middle() -> None:
    alone = Market(5, "active", "active", START, 50.0).ticks(90_000, 3)
    together = Market(5, "active", "active", START, 50.0).ticks(89_990, 13)
    begins = together.option_trades.filter(pl.col("source_ts") >= alone.from_ts)
    assert alone.option_trades.equals(begins)
    assert alone.option_trades.height > 100


def test_another_seed_gives_another_tape_in_every_respect() -> None:
    one, two = (Market(seed, "active", "active", START).ticks(0, 40) for seed in (1, 2))
    for kind, column in (("option_trades", "option_contract_id"), ("equity_trades", "underlying_id"), ("equity_quotes", "bid")):
        assert getattr(one, kind)[column].to_list() != getattr(two, kind)[column].to_list()


def test_a_tape_does_not_depend_on_the_hash_seed_of_the_process() -> None:
    script = (
        "from tests.unit.test_simulator import *\n"
        "print(digest(Market(5, 'firehose', 'active', START, 90.0).ticks(0, 5)), list(Market(5, 'firehose', 'active', START).description))"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(answers) == 1
    assert digest(Market(5, "firehose", "active", START, 90.0).ticks(0, 5)) in answers.pop()


def test_each_feed_has_its_own_profile_and_only_its_own() -> None:
    mixed, plain = Market(4, "active", "firehose", START).ticks(0, 30), Market(4, "active", "realistic", START).ticks(0, 30)
    content = ["source_ts", "option_contract_id", "price", "size", "exchange"]
    assert mixed.option_trades.select(content).equals(plain.option_trades.select(content))
    assert mixed.equity_trades.height > 2 * plain.equity_trades.height
    assert mixed.option_trades["trace_id"][0].startswith("synthetic-4-active-op-")
    assert mixed.option_quotes["trace_id"][0].startswith("synthetic-4-active-on-")
    assert mixed.equity_trades["trace_id"][0].startswith("synthetic-4-firehose-ep-")
    assert mixed.equity_quotes["trace_id"][0].startswith("synthetic-4-firehose-eq-")


def test_the_description_names_all_that_determines_the_tape() -> None:
    assert Market(4, "active", "firehose", START).description == {
        "generator": 1,
        "seed": 4,
        "options_profile": "active",
        "equities_profile": "firehose",
        "start_ts": START,
        "rate": 7.5,
        "hot_share": 0.0,
    }


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        (("active", "firehose", ""), ("firehose", "active")),
        (("firehose", "", ""), ("firehose", "firehose")),
        (("firehose", "realistic", "active"), ("realistic", "active")),
        (("nonsense", "", "nonsense"), ("realistic", "realistic")),
        (("active", "nonsense", ""), ("active", "active")),
    ],
)
def test_an_override_wins_over_the_market_mode_and_nonsense_counts_as_unset(modes: tuple[str, str, str], expected: tuple[str, str]) -> None:
    assert resolve(*modes) == expected


# Order and pace


def test_events_are_numbered_in_the_order_of_time_across_kinds(tape: Tape) -> None:
    every = pl.concat([getattr(tape, kind).select("n", "source_ts", "trace_id") for kind in KINDS]).sort("n")
    assert every["n"].is_unique().all()
    assert every["trace_id"].is_unique().all()
    assert every["source_ts"].is_sorted()
    for kind in KINDS:
        assert getattr(tape, kind)["n"].is_sorted()
    assert (every["source_ts"][0] or 0) >= tape.from_ts
    assert (every["source_ts"][-1] or 0) <= tape.upto_ts


def test_an_id_ends_in_the_number_of_the_event(tape: Tape) -> None:
    frame = tape.option_trades
    assert (frame["trace_id"].str.split("-").list.last().cast(pl.Int64) == frame["n"]).all()


@pytest.mark.parametrize(
    ("profile", "rate"), [("realistic", None), ("active", None), ("firehose", None), ("active", 5_000.0), ("realistic", 60.0)]
)
def test_prints_come_at_the_rate_asked_for(profile: str, rate: float | None) -> None:
    market = Market(1, profile, profile, START, rate)
    ticks = 3_600 if rate is None else 60
    assert market.ticks(0, ticks).option_trades.height / ticks == pytest.approx(rate or PROFILES[profile].rate, rel=0.05)


def test_a_busy_tape_interleaves_hundreds_of_contracts_all_over_the_second() -> None:
    tape = Market(1, "active", "active", START, 5_000.0).ticks(7, 1)
    assert tape.option_trades["option_contract_id"].n_unique() > 300
    per_tenth = np.bincount(((tape.option_trades["source_ts"] - tape.from_ts) // 100).to_numpy(), minlength=10)
    assert per_tenth[1:9].min() > 350
    changes = (tape.option_trades["option_contract_id"] != tape.option_trades["option_contract_id"].shift(1)).mean()
    assert isinstance(changes, float)
    assert changes > 0.9


# Quotes and prices


def test_every_print_has_a_quote_of_its_contract_before_it_and_none_is_later_in_time(tape: Tape) -> None:
    prints = quoted(tape)
    assert prints["quote_n"].null_count() == 0
    assert (prints["quote_n"] < prints["n"]).all()
    fresh = prints.filter(~word("CANCEL"))
    assert (fresh["source_ts"] - fresh["quote_ts"]).is_in([0, 1]).all()


def test_the_underlying_is_quoted_just_before_every_option_print(tape: Tape) -> None:
    roots = pl.col("option_contract_id").str.extract(r"^(.*)-\d{4}-\d\d-\d\d-[\d.]+-[CP]$").alias("underlying_id")
    prints = tape.option_trades.filter(~word("CANCEL")).with_columns(roots)
    quotes = tape.equity_quotes.select("n", "underlying_id", quote_ts="source_ts")
    joined = prints.join_asof(quotes, on="n", by="underlying_id", check_sortedness=False)
    assert joined["quote_ts"].null_count() == 0
    assert (joined["source_ts"] - joined["quote_ts"]).is_between(0, 100).all()


def test_options_and_shares_stand_on_one_price_base(tape: Tape) -> None:
    base = pl.DataFrame({"underlying_id": symbols.NAMES, "base": symbols.BASES})
    shares = tape.equity_quotes.join(base, on="underlying_id").select((pl.col("bid") / pl.col("base") - 1).abs().max()).item()
    assert shares < 0.05
    parts = pl.col("option_contract_id").str.extract_groups(r"^(?<underlying_id>.*)-\d{4}-\d\d-\d\d-(?<strike>[\d.]+)-[CP]$")
    legs = tape.option_quotes.select(parts.alias("parts")).unnest("parts").join(base, on="underlying_id")
    away = (legs["strike"].cast(pl.Float64) / legs["base"] - 1).abs()
    assert np.median(away.to_numpy()) < 0.1
    assert symbols.BASES[symbols.SPY] == 182
    assert [symbols.BASES[symbols.INDEX[name]] for name in ("AAPL", "NVDA", "MSFT", "TSLA")] == [286, 292, 474, 178]


def test_bids_stand_below_asks_and_leave_room_between(tape: Tape) -> None:
    for frame, least in ((tape.option_quotes, 0.04), (tape.equity_quotes, 0.04)):
        assert (frame["bid"] > 0).all()
        assert (frame["ask"] - frame["bid"]).min() == pytest.approx(least)
        assert (frame["bid_size"] > 0).all()
        assert (frame["ask_size"] > 0).all()
    assert set(tape.option_quotes["bid_venue"]) | set(tape.option_quotes["ask_venue"]) == set(OPTION_VENUES)


def test_prices_are_positive_and_quotes_stand_on_the_increment_of_their_class(tape: Tape) -> None:
    assert (tape.option_trades["price"] > 0).all()
    root = tape.option_quotes["option_contract_id"].str.extract(r"^(.*)-\d{4}-", 1)
    symbol = np.array([symbols.INDEX[name] for name in root], dtype=np.int64)
    bid, ask = ((tape.option_quotes[name] * 100).round().cast(pl.Int64).to_numpy() for name in ("bid", "ask"))
    tick = np.where(symbols.IS_NICKEL[symbol], np.where(ask >= 300, 10, 5), np.where((ask >= 300) & (symbol != symbols.SPY), 5, 1))
    coarse = price_tick(symbol, (bid + ask) // 2)
    assert set(np.unique(coarse)) == {1, 5, 10}
    assert not (ask % tick).any()
    assert not (bid % np.where(bid >= 300, tick, 1)).any()
    cents = tape.option_trades["price"] * 100
    assert ((cents - cents.round()).abs() < 1e-6).all()


def test_every_placement_in_the_quote_occurs_and_neither_side_dominates(tape: Tape) -> None:
    prints = quoted(tape).filter(~word("CANCEL"))
    dollars = (prints["price"] * prints["size"]).to_numpy()
    price, bid, ask = (prints[name].to_numpy() for name in ("price", "bid", "ask"))
    buys, sells = price >= ask, price <= bid
    outside = ((price > ask).sum(), (price < bid).sum())
    assert min(outside) > 0.03 * prints.height
    assert (~buys & ~sells).sum() > 0.01 * prints.height
    assert 0.4 < buys.sum() / (buys.sum() + sells.sum()) < 0.6
    assert 0.4 < dollars[buys].sum() / dollars[buys | sells].sum() < 0.6


# What must be in every profile


def test_every_condition_word_occurs_and_no_other(tape: Tape) -> None:
    assert set(tape.option_trades["conditions"].explode()) == set(CONDITION_WORDS)
    assert (tape.option_trades["conditions"].list.len() == 1).all()


def test_off_exchange_prints_and_spy_occur(tape: Tape) -> None:
    off = tape.equity_trades.filter("off_exchange_flag")
    assert 0.1 < off.height / tape.equity_trades.height < 0.65
    assert off["trf_id"].null_count() == 0
    assert set(off["exchange"]) == {"OTC"}
    assert tape.equity_trades.filter(~pl.col("off_exchange_flag"))["trf_id"].null_count() == tape.equity_trades.height - off.height
    assert 0 < off["exec_ts"].null_count() < off.height
    assert (tape.equity_trades["underlying_id"] == "SPY").sum() > 0
    assert tape.option_trades["option_contract_id"].str.starts_with("SPY-").sum() > 0


def test_packages_are_legs_of_one_millisecond_and_venue_with_sizes_in_ratio(tape: Tape, truth: pl.DataFrame) -> None:
    legs = tape.option_trades.filter(word("MULTI_LEG"))
    packages = legs.join(truth, on="n").group_by("parent_id").agg(
        pl.len().alias("legs"), pl.col("source_ts").n_unique(), pl.col("exchange").n_unique(),
        pl.col("option_contract_id").n_unique().alias("contracts"),
        (pl.col("size").max() / pl.col("size").min()).alias("ratio"),
    )  # fmt: skip
    assert legs.height == packages["legs"].sum()
    assert set(packages["legs"]) == {2, 3, 4}
    assert packages["source_ts"].to_list() == [1] * packages.height
    assert packages["exchange"].to_list() == [1] * packages.height
    assert packages["contracts"].to_list() == packages["legs"].to_list()
    assert set(packages.filter(pl.col("legs") == 3)["ratio"]) == {2.0}
    assert set(packages.filter(pl.col("legs") != 3)["ratio"]) == {1.0}


def test_sweeps_take_several_venues(tape: Tape, truth: pl.DataFrame) -> None:
    sweeps = tape.option_trades.filter(word("SWEEP")).join(truth.select("n", "parent_id"), on="n")
    venues = sweeps.group_by("parent_id").agg(pl.col("exchange").n_unique().alias("venues"), pl.len().alias("prints"))
    assert (venues["venues"] == venues["prints"].clip(upper_bound=len(OPTION_VENUES))).all()
    assert venues["venues"].min() in (2, len(OPTION_VENUES))


def test_a_cancel_takes_back_an_earlier_print_by_contract_price_size_and_venue(tape: Tape, truth: pl.DataFrame) -> None:
    key = ["parent_id", "option_contract_id", "price", "size", "exchange"]
    prints = tape.option_trades.join(truth.select("n", "parent_id"), on="n")
    cancels = prints.filter(word("CANCEL"))
    originals = prints.filter(~word("CANCEL")).select(*key, original_ts="source_ts", original_n="n")
    matched = cancels.join(originals, on=key).filter(pl.col("original_n") < pl.col("n"))
    assert cancels.height > 20
    assert matched["n"].n_unique() == cancels.height
    nearest = matched.group_by("n").agg((pl.col("source_ts") - pl.col("original_ts")).min().alias("delay"))["delay"]
    assert nearest.is_between(50, 2_499).all()
    assert (nearest > 1_500).any()


def test_some_prints_hit_a_resting_order_that_is_the_whole_quote(tape: Tape, truth: pl.DataFrame) -> None:
    resting = quoted(tape).join(truth, on="n").filter((pl.col("aggressor") != pl.col("customer")) & ~pl.col("cancel"))
    whole = pl.when(pl.col("aggressor") > 0).then(pl.col("ask_size") == pl.col("size")).otherwise(pl.col("bid_size") == pl.col("size"))
    assert resting.height > 0.005 * tape.option_trades.height
    assert resting.select(whole.mean()).item() > 0.98


def test_expiries_are_trading_days_not_in_the_past(tape: Tape) -> None:
    expiries = {
        date.fromisoformat(text) for text in tape.option_quotes["option_contract_id"].str.extract(r"-(\d{4}-\d\d-\d\d)-", 1).unique()
    }
    assert len(expiries) > 6
    assert all(is_trading_day(day) for day in expiries)
    assert min(expiries) == date(2026, 1, 2)


def test_truth_names_the_parent_order_of_every_print(profile: str, tape: Tape, truth: pl.DataFrame) -> None:
    assert truth["trace_id"].equals(tape.option_trades["trace_id"])
    assert set(truth["scenario"]) == {scenario.name for scenario in PROFILES[profile].scenarios}
    assert set(truth["aggressor"]) == set(truth["customer"]) == {1, -1}
    assert (truth["cancel"] == (tape.option_trades["conditions"].list.first() == "CANCEL")).all()


def test_all_504_symbols_are_reachable() -> None:
    tape = Market(1, "realistic", "realistic", START, 900.0).ticks(0, 25)
    assert len(symbols.SYMBOLS) == 504
    assert set(tape.equity_trades["underlying_id"]) == set(symbols.SYMBOLS)
    assert set(tape.option_trades["option_contract_id"].str.extract(r"^(.*)-\d{4}-\d\d-", 1)) == set(symbols.SYMBOLS)


def test_a_hot_share_moves_parent_orders_to_spy() -> None:
    tape = Market(1, "active", "active", START, 2_000.0, hot_share=0.4).ticks(0, 10)
    assert tape.option_trades["option_contract_id"].str.starts_with("SPY-").mean() == pytest.approx(0.45, abs=0.04)
