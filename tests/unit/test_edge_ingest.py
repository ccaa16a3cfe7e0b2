"""From feeds to records: context, numbers, restarts, split work, in memory."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl
import pytest

from flowapp import topics
from flowapp.edge.adapters.base import Chunk, Refusal
from flowapp.edge.adapters.synthetic import SyntheticAdapter
from flowapp.edge.feeds import Feeds, open_feeds
from flowapp.edge.ledger import FINISHED, RUNNING, is_finished, row
from flowapp.engine.producer import Sent
from flowapp.errors import NamespaceError
from flowapp.runs import MemoryRunLog
from tests.mocks.edge import FakeClock, Scripted, by_partition, chunk, decoded, feeds_of, memory_settings, prints, run_edge

OPEN = 1_718_371_800_000  # 2024-06-14 09:30 in New York
RAW = (topics.OPTIONS_PRINTS, topics.OPTIONS_NBBO, topics.EQUITIES_PRINTS, topics.EQUITIES_QUOTES)


def synthetic(ticks: int = 12, cut: random.Random | None = None, **values: Any) -> tuple[Any, Feeds]:
    settings = memory_settings(synthetic_market_mode="active", synthetic_rate=200.0, topic_partitions=4, **values)
    adapter: Any = SyntheticAdapter(settings, OPEN, limit_ticks=ticks)
    if cut is not None:
        chunks = [part for whole in adapter.chunks() for part in recut(whole, cut)]
        adapter = Scripted(chunks, "synthetic", "synthetic")
    return settings, replace(open_feeds(settings, OPEN), adapters=[adapter])


def recut(whole: Chunk, chance: random.Random) -> list[Chunk]:
    """Cut a chunk at some times."""
    frames = (whole.option_trades, whole.option_quotes, whole.equity_trades, whole.equity_quotes)
    times = sorted({ts for frame in frames for ts in frame["source_ts"]})
    cuts = [*sorted(chance.sample(times, min(len(times), chance.randint(0, 9)))), whole.upto_ts]
    parts, before = [], -1
    for upto in cuts:
        inside = (pl.col("source_ts") > before) & (pl.col("source_ts") <= upto)
        parts.append(Chunk(upto, *(frame.filter(inside) for frame in frames)))  # type: ignore[arg-type]
        before = upto
    return parts


@pytest.fixture(scope="module")
def whole() -> list[Sent]:
    settings, feeds = synthetic()
    return run_edge(settings, feeds)


def test_the_log_does_not_depend_on_how_a_feed_is_cut_into_chunks(whole: list[Sent]) -> None:
    for seed in range(4):
        settings, feeds = synthetic(cut=random.Random(seed))
        assert by_partition(run_edge(settings, feeds)) == by_partition(whole)


def test_seq_rises_by_one_within_every_partition_of_a_run_and_ticks_rise(whole: list[Sent]) -> None:
    for topic in RAW:
        for (_,), rows in decoded(whole, topic).group_by("_partition", maintain_order=True):
            assert rows["seq"].to_list() == list(range(rows.height))
            if "w" in rows.columns:
                ticks = rows["w"].drop_nulls()
                assert ticks.is_sorted()
                assert ticks.n_unique() == len(ticks)


def test_every_partition_ticks_and_the_last_tick_closes_everything(whole: list[Sent]) -> None:
    rows = decoded(whole, topics.OPTIONS_PRINTS)
    ends = rows.group_by("_partition").agg(pl.col("w").max(), pl.col("w").last().alias("last"))
    assert ends["_partition"].sort().to_list() == [0, 1, 2, 3]
    assert ends["w"].n_unique() == 1
    assert ends["w"].to_list() == ends["last"].to_list()
    assert ends["w"][0] - rows["source_ts"].max() >= 1_800_000


def test_a_record_stands_on_its_underlyings_partition_under_its_name_and_event_time(whole: list[Sent]) -> None:
    for topic in (topics.OPTIONS_PRINTS, topics.OPTIONS_NBBO):
        rows = decoded(whole, topic)
        records = [record for record in whole if record.topic == f"mem.{topic}"]
        for record, line in zip(records, rows.iter_rows(named=True), strict=True):
            if line.get("w") is None:
                assert record.key == line["underlying_id"].encode()
                assert record.partition == topics.partition_of(line["underlying_id"], 4)
                assert record.timestamp == line["source_ts"]
            else:
                assert (record.key, record.timestamp) == (None, line["w"])


def test_options_prints_carry_the_quote_and_the_underlyings_quote_at_or_before_them(whole: list[Sent]) -> None:
    rows = prints(whole, topics.OPTIONS_PRINTS)
    nbbo = decoded(whole, topics.OPTIONS_NBBO).select(
        "option_contract_id", pl.col("source_ts").alias("ts"), pl.col("trace_id").alias("id"), "bid"
    )
    number = pl.col("trace_id").str.extract(r"(\d+)$").cast(pl.Int64)
    keyed = nbbo.with_columns(pl.col("id").str.extract(r"(\d+)$").cast(pl.Int64).alias("n")).sort("n")
    expected = rows.select("option_contract_id", number.alias("n"), "nbbo_id", "nbbo_bid").sort("n")
    joined = expected.join_asof(keyed, on="n", by="option_contract_id", strategy="backward", check_sortedness=False)
    assert joined["id"].to_list() == joined["nbbo_id"].to_list()
    assert joined["bid"].to_list() == joined["nbbo_bid"].to_list()
    assert rows["underlying_bid"].null_count() < rows.height / 10
    assert (rows["underlying_ts"] <= rows["source_ts"]).all()


def beginning(whole: list[Sent], left: dict[tuple[str, int], int]) -> list[Sent]:
    """Return the first records of every topic and partition, as many as `left` says."""
    left, before = dict(left), []
    for record in whole:
        if left[record.topic, record.partition] > 0:
            left[record.topic, record.partition] -= 1
            before.append(record)
    return before


@pytest.mark.parametrize("seed", range(6))
def test_a_restart_adds_exactly_what_is_missing(whole: list[Sent], seed: int) -> None:
    chance = random.Random(seed)
    left: dict[tuple[str, int], int] = {key: chance.randint(0, len(rows)) for key, rows in by_partition(whole).items()}
    if seed == 0:
        left = dict.fromkeys(left, 0) | {next(iter(left)): 1}
    before = beginning(whole, left)
    settings, feeds = synthetic()
    added = run_edge(settings, feeds, before)
    assert by_partition([*before, *added]) == by_partition(whole)


def test_a_whole_log_gets_nothing_added(whole: list[Sent]) -> None:
    settings, feeds = synthetic()
    assert run_edge(settings, feeds, whole) == []


def test_two_edges_with_split_partitions_write_what_one_does(whole: list[Sent]) -> None:
    parts = []
    for partitions in ([0, 2], [1, 3]):
        settings, feeds = synthetic()
        parts += run_edge(settings, feeds, partitions=partitions)
    assert by_partition(parts) == by_partition(whole)


def test_bytes_that_are_no_record_at_a_logs_end_are_passed_over(whole: list[Sent]) -> None:
    garbage = [Sent(record.topic, record.partition, None, b"\x00garbage", 0, ()) for record in whole[:1] for _ in range(20)]
    settings, feeds = synthetic()
    assert run_edge(settings, feeds, [*whole, *garbage]) == []


def test_a_source_that_changed_is_refused_and_one_with_another_stamp_is_not(whole: list[Sent]) -> None:
    settings, feeds = synthetic()
    half = beginning(whole, {key: len(rows) // 2 for key, rows in by_partition(whole).items()})
    stamped = replace(settings, options_signal_min_notional=1.0)
    assert run_edge(stamped, feeds, half)
    _, other = synthetic(cut=random.Random(1))
    adapter: Any = other.adapters[0]
    dearer = [replace(part, option_trades=part.option_trades.with_columns(pl.col("price") + 1)) for part in adapter.chunks_]
    with pytest.raises(NamespaceError, match="price was"):
        run_edge(settings, replace(feeds, adapters=[Scripted(dearer, "synthetic", "synthetic")]), half)


def test_a_source_that_ends_before_its_log_is_refused(whole: list[Sent]) -> None:
    settings, feeds = synthetic(ticks=3)
    with pytest.raises(NamespaceError, match=r"goes on beyond the end|no longer gives"):
        run_edge(settings, feeds, whole)


def test_an_earlier_market_is_refused_and_a_later_one_goes_on() -> None:
    settings = memory_settings()
    first = feeds_of(Scripted([chunk([{"kind": "op", "n": 0, "source_ts": OPEN}], OPEN)]), run="a")
    before = run_edge(settings, first)
    for ts in (OPEN - 86_400_000, OPEN + 60_000):
        with pytest.raises(NamespaceError, match="a time line only goes on"):
            run_edge(settings, feeds_of(Scripted([chunk([{"kind": "op", "n": 0, "source_ts": ts}], ts)]), run="b"), before)
    later = OPEN + 86_400_000
    added = run_edge(settings, feeds_of(Scripted([chunk([{"kind": "op", "n": 0, "source_ts": later}], later)]), run="b"), before)
    assert prints(added, topics.OPTIONS_PRINTS)["arrived_late"].to_list() == [False]
    for (_,), rows in decoded([*before, *added], topics.OPTIONS_PRINTS).group_by("_partition"):
        assert rows["w"].drop_nulls().is_sorted()


def test_times_of_2013_and_2030_are_kept() -> None:
    settings = memory_settings()
    for text in ("2013-10-08T14:30:00+00:00", "2030-03-12T14:30:00+00:00"):
        ts = round(datetime.fromisoformat(text).timestamp() * 1000)
        sent = run_edge(settings, feeds_of(Scripted([chunk([{"kind": "ep", "n": 0, "source_ts": ts}], ts)])))
        rows = prints(sent, topics.EQUITIES_PRINTS)
        assert rows["source_ts"].to_list() == [ts]
        assert rows["session"].to_list() == ["regular"]
        assert [record.timestamp for record in sent if record.key == b"AAPL"] == [ts]


def test_a_quote_delivered_with_its_trade_is_written_before_it_and_is_its_quote() -> None:
    trade = {
        "kind": "op",
        "n": 3,
        "source_ts": OPEN,
        "price": 1.1,
        "q_ts": OPEN - 400,
        "q_bid": 1.0,
        "q_ask": 1.1,
        "q_bid_size": 4,
        "q_ask_size": 5,
    }
    none = {"kind": "op", "n": 4, "source_ts": OPEN + 1, "q_ts": OPEN + 1}
    sent = run_edge(memory_settings(), feeds_of(Scripted([chunk([trade, none], OPEN + 1)])))
    rows = prints(sent, topics.OPTIONS_PRINTS)
    quotes = decoded(sent, topics.OPTIONS_NBBO)
    assert quotes.select("trace_id", "source_ts", "bid", "ask", "quote_source").rows() == [
        ("test-on-3", OPEN - 400, 1.0, 1.1, "with_trade")
    ]
    assert rows.select("nbbo_id", "nbbo_ts", "quote_source", "quote_tie", "nbbo_side", "spread_pos").rows() == [
        ("test-on-3", OPEN - 400, "with_trade", False, "A", 1.0),
        (None, None, None, None, "MISSING", None),
    ]
    order = [record.topic for record in sent if record.key is not None]
    assert order.index("mem.options.nbbo") < order.index("mem.options.prints")


def test_an_empty_market_ends_the_last_quote_and_is_no_record() -> None:
    events = [
        {"kind": "on", "n": 0, "source_ts": OPEN}, {"kind": "op", "n": 1, "source_ts": OPEN + 1},
        {"kind": "on", "n": 2, "source_ts": OPEN + 2, "bid": None, "ask": None}, {"kind": "op", "n": 3, "source_ts": OPEN + 3},
    ]  # fmt: skip
    sent = run_edge(memory_settings(), feeds_of(Scripted([chunk(events, OPEN + 3)])))
    assert prints(sent, topics.OPTIONS_PRINTS)["nbbo_bid"].to_list() == [1.0, None]
    assert decoded(sent, topics.OPTIONS_NBBO).height == 1


def test_an_off_exchange_report_without_execution_time_carries_the_band_of_its_delay() -> None:
    quotes = [{"kind": "eq", "n": i, "source_ts": OPEN + 4000 * i, "bid": 199.0 + i, "ask": 200.0 + i} for i in range(5)]
    report = {"kind": "ep", "n": 9, "source_ts": OPEN + 17_000, "exchange": "FINN", "off_exchange_flag": True}
    told = {"kind": "ep", "n": 10, "source_ts": OPEN + 17_000, "exchange": "FINN", "off_exchange_flag": True, "exec_ts": OPEN + 5000}
    sent = run_edge(memory_settings(trf_delay_ms=10_000), feeds_of(Scripted([chunk([*quotes, report, told], OPEN + 17_000)])))
    rows = prints(sent, topics.EQUITIES_PRINTS)
    assert rows.select("bid_low", "bid_high", "ask_low", "ask_high").rows() == [(200.0, 203.0, 201.0, 204.0), (None,) * 4]
    assert rows["quote_bid"].to_list() == [203.0, 200.0]


def test_of_two_feeds_a_quote_of_the_same_time_is_not_taken_for_an_earlier_one() -> None:
    options = Scripted([chunk([{"kind": "op", "n": 0, "source_ts": OPEN + 5}, {"kind": "op", "n": 1, "source_ts": OPEN + 6}], OPEN + 6)])
    quotes = [{"kind": "eq", "n": 0, "source_ts": OPEN, "bid": 10.0, "ask": 11.0}, {"kind": "eq", "n": 1, "source_ts": OPEN + 5}]
    sent = run_edge(memory_settings(), feeds_of(options, Scripted([chunk(quotes, OPEN + 6)])))
    assert prints(sent, topics.OPTIONS_PRINTS)["underlying_bid"].to_list() == [10.0, 199.9]


def test_refused_rows_become_dead_letters_once() -> None:
    settings = memory_settings()
    bad = replace(chunk([{"kind": "op", "n": 0, "source_ts": OPEN}], OPEN), refusals=(Refusal(7, b"raw\xff", "bad_price", "price was -1"),))
    sent = run_edge(settings, feeds_of(Scripted([bad])))
    letter = decoded(sent, topics.DEAD_LETTERS).row(0, named=True)
    assert (letter["id"], letter["stage"], letter["raw"], letter["row"], letter["reason"]) == (
        "test:r1:7",
        "edge",
        b"raw\xff",
        7,
        "bad_price",
    )
    assert run_edge(settings, feeds_of(Scripted([bad])), sent) == []


def test_testing_mode_lets_the_same_events_through_after_a_restart() -> None:
    settings, feeds = synthetic(testing_mode=True, testing_throttle_ms=200)
    sent = run_edge(settings, feeds)
    for topic in RAW:
        times = decoded(sent, topic)["source_ts"].drop_nulls().sort()
        assert 10 < len(times) <= 12_000 / 200 + 1
        assert (times.diff().drop_nulls() >= 200).all()
    settings, feeds = synthetic(cut=random.Random(3), testing_mode=True, testing_throttle_ms=200)
    before = sent[: len(sent) // 3]
    assert by_partition([*before, *run_edge(settings, feeds, before)]) == by_partition(sent)


def test_a_file_is_read_as_fast_as_asked() -> None:
    events = [{"kind": "op", "n": i, "source_ts": OPEN + 1000 * i} for i in range(11)]
    for speed, least, most in ((1.0, 10_000, 10_600), (4.0, 2_500, 3_000), (0.0, 0, 1)):
        clock = FakeClock(now=5)
        run_edge(memory_settings(), feeds_of(Scripted([chunk(events, OPEN + 10_000)]), speed=speed), clock=clock)
        assert least <= clock.now - 5 <= most


def test_pace_changes_nothing_in_the_log() -> None:
    events = [{"kind": "op", "n": i, "source_ts": OPEN + 333 * i + (5000 if i > 20 else 0)} for i in range(40)]
    logs = [
        by_partition(run_edge(memory_settings(), feeds_of(Scripted([chunk(events, OPEN + 60_000)]), speed=speed))) for speed in (0.0, 3.0)
    ]
    assert logs[0] == logs[1]


def test_a_finished_source_is_told_from_an_unfinished_and_a_foreign_one() -> None:
    settings, feeds = synthetic()
    other = replace(feeds, run="other")
    log = MemoryRunLog()
    assert not is_finished(log.read_all(), settings, feeds, [0, 1, 2, 3])
    log.write([row(settings, feeds, [0, 1], RUNNING), row(settings, feeds, [2, 3], RUNNING)])
    with pytest.raises(NamespaceError, match="beginning of another source"):
        is_finished(log.read_all(), settings, other, [0, 1, 2, 3])
    log.write([row(settings, feeds, [0, 1], FINISHED)])
    assert not is_finished(log.read_all(), settings, feeds, [0, 1, 2, 3])
    assert is_finished(log.read_all(), settings, feeds, [0, 1])
    log.write([row(settings, feeds, [2, 3], FINISHED)])
    assert is_finished(log.read_all(), settings, feeds, [0, 1, 2, 3])
    assert not is_finished(log.read_all(), settings, other, [0, 1, 2, 3])
    with pytest.raises(NamespaceError, match="TICK_MS was 250 and is 100 now"):
        is_finished(log.read_all(), replace(settings, tick_ms=100), feeds, [0])
