"""The synthetic market as a feed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import polars as pl
import pytest

from flowapp.edge.adapters.base import EQUITY_QUOTES, EQUITY_TRADES, OPTION_QUOTES, OPTION_TRADES, Chunk
from flowapp.edge.adapters.synthetic import CHUNK_EVENTS, SyntheticAdapter, asked_rate
from flowapp.settings import Settings

START = 1_767_366_000_000
SCHEMAS = {"option_trades": OPTION_TRADES, "option_quotes": OPTION_QUOTES, "equity_trades": EQUITY_TRADES, "equity_quotes": EQUITY_QUOTES}


def settings(**variables: str) -> Settings:
    return Settings.load(variables, dotenv=Path("/nonexistent"))


def whole(chunks: list[Chunk]) -> dict[str, pl.DataFrame]:
    return {kind: pl.concat([getattr(chunk, kind) for chunk in chunks]) for kind in SCHEMAS}


def events(chunk: Chunk) -> int:
    return sum(getattr(chunk, kind).height for kind in SCHEMAS)


def test_frames_have_exactly_the_columns_that_a_feed_delivers() -> None:
    for chunk in SyntheticAdapter(settings(SYNTHETIC_RATE="200"), START, limit_ticks=2).chunks():
        for kind, schema in SCHEMAS.items():
            assert getattr(chunk, kind).schema == schema
            assert getattr(chunk, kind).columns == schema.names()
        assert chunk.option_trades["q_ts"].null_count() == chunk.option_trades.height


def test_each_chunk_delivers_all_up_to_its_time_and_nothing_later() -> None:
    chunks = list(SyntheticAdapter(settings(SYNTHETIC_MARKET_MODE="active", SYNTHETIC_RATE="300"), START, limit_ticks=3).chunks())
    before = START - 1
    for chunk in chunks:
        for kind in SCHEMAS:
            assert getattr(chunk, kind)["source_ts"].is_between(before + 1, chunk.upto_ts).all()
        before = chunk.upto_ts
    assert before == START + 2_999
    assert [chunk.upto_ts - START for chunk in chunks[:3]] == [49, 99, 149]


@pytest.mark.parametrize("speed", ["0", "0.5", "1", "20"])
def test_the_events_do_not_depend_on_the_pace(speed: str) -> None:
    chunks = list(SyntheticAdapter(settings(SYNTHETIC_MARKET_MODE="active", FLOW_SPEED=speed), START, limit_ticks=30).chunks())
    asked = SyntheticAdapter(settings(SYNTHETIC_MARKET_MODE="active"), START, limit_ticks=30)
    tape = asked.market.ticks(0, 30)
    for kind, frame in whole(chunks).items():
        assert frame["trace_id"].equals(getattr(tape, kind)["trace_id"])


@pytest.mark.parametrize(("rate", "speed"), [("20000", "1"), ("60000", "0"), ("7.5", "0")])
def test_a_chunk_holds_no_more_than_the_edge_can_take_at_once(rate: str, speed: str) -> None:
    adapter = SyntheticAdapter(settings(SYNTHETIC_MARKET_MODE="active", SYNTHETIC_RATE=rate, FLOW_SPEED=speed), START, limit_ticks=2)
    sizes = [events(chunk) for chunk in adapter.chunks()]
    assert max(sizes) < 1.3 * CHUNK_EVENTS


def test_a_feed_that_is_off_is_left_out_and_changes_nothing_of_the_other() -> None:
    both = whole(list(SyntheticAdapter(settings(), START, limit_ticks=60).chunks()))
    options = whole(list(SyntheticAdapter(settings(EQUITIES_INGEST_ADAPTER="none"), START, limit_ticks=60).chunks()))
    equities = whole(list(SyntheticAdapter(settings(OPTIONS_INGEST_ADAPTER="none"), START, limit_ticks=60).chunks()))
    for kind in SCHEMAS:
        on, off = (options, equities) if kind.startswith("option") else (equities, options)
        assert on[kind].equals(both[kind])
        assert both[kind].height > 0
        assert off[kind].height == 0


def test_a_feed_without_limit_goes_on_and_starts_again_the_same() -> None:
    adapter = SyntheticAdapter(settings(SYNTHETIC_SEED="9", FLOW_SPEED="10"), START)
    chunks = list(islice(adapter.chunks(), 1_500))
    first, again = whole(chunks), whole(list(islice(adapter.chunks(), 1_500)))
    assert chunks[-1].upto_ts == START + 1_500 * 500 - 1
    for kind, frame in first.items():
        assert frame.equals(again[kind])
        assert frame["source_ts"][-1] > START + 740_000


def test_profiles_and_seed_come_from_the_settings() -> None:
    adapter = SyntheticAdapter(settings(SYNTHETIC_MARKET_MODE="active", SYNTHETIC_OPTIONS_MODE="firehose", SYNTHETIC_SEED="7"), START)
    assert (adapter.feed, adapter.vocabulary) == ("synthetic", "synthetic")
    assert adapter.description == {
        "generator": 1,
        "seed": 7,
        "options_profile": "firehose",
        "equities_profile": "active",
        "start_ts": START,
        "rate": 10.0,
        "hot_share": 0.0,
    }


def test_the_rate_may_be_given_as_an_interval() -> None:
    assert asked_rate(settings()) is None
    assert asked_rate(settings(SYNTHETIC_RATE="50")) == 50
    assert asked_rate(settings(EMIT_INTERVAL_MS="20")) == 50
