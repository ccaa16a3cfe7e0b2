"""The options fold: what it decides, when, and that neither batches nor restarts change a byte."""

from __future__ import annotations

import itertools
from typing import Any

import polars as pl
import pytest

from flowapp import topics
from flowapp.core.fold import MemoryState, Result, RunResult, run, split_by_partition
from flowapp.core.options import OptionsFold
from flowapp.core.rules import RULE_SETS
from flowapp.records.schemas import frame_schema
from flowapp.settings import Settings
from tests.oracle.options import OptionsOracle
from tests.tapes import START_MS, option_print, random_prints, stamped, tape, tick, with_ticks

RULES = ("standard", "reference")
MODES = ("smart-money", "balanced", "all")
CONTRACT_A, CONTRACT_B, CONTRACT_C = (f"AAPL-2025-06-20-{strike}-C" for strike in (200, 205, 210))


class ForgetfulState(MemoryState):
    """Drops what a fold keeps decoded after every batch, as a new owner of the partition begins."""

    def merge(self, result: Result) -> None:
        super().merge(result)
        self.memory = None


def settings_of(rules: str = "standard", **values: Any) -> Settings:
    return Settings(rules=rules, **values)


def fold_of(rules: str = "standard", **values: Any) -> OptionsFold:
    return OptionsFold(settings_of(rules, **values))


def packets(result: RunResult) -> pl.DataFrame:
    return result.outputs.get(topics.FLOW_PACKETS, pl.DataFrame(schema=frame_schema("FlowPacket")))


def assert_same(one: RunResult, other: RunResult) -> None:
    assert one.outputs.keys() == other.outputs.keys()
    for topic, frame in one.outputs.items():
        assert frame.equals(other.outputs[topic]), topic
    assert one.refused == other.refused
    for partition, state in one.states.items():
        assert state.rows == other.states[partition].rows


def disorderly_log(seed: int, count: int, settings: Settings, tick_ms: int = 250) -> pl.DataFrame:
    return stamped(with_ticks(random_prints(seed, count, disorder_ms=60, late_share=0.1), tick_ms), settings)


@pytest.mark.parametrize("rules", RULES)
def test_batches_of_any_size_give_the_same_outputs_and_state_rows(rules: str) -> None:
    settings = settings_of(rules)
    log = disorderly_log(11, 1500, settings)
    whole = run(OptionsFold(settings), log)
    assert packets(whole).height > 50
    assert packets(whole)["late"].any()
    for batch in (1, 7, 500):
        assert_same(run(OptionsFold(settings), log, batch), whole)


@pytest.mark.parametrize("rules", RULES)
def test_a_log_on_which_time_stands_still_between_batches_is_still_the_same(rules: str) -> None:
    settings = settings_of(rules)
    log = stamped(with_ticks(random_prints(3, 700, span_ms=2_000, late_share=0.1), 1_000), settings)
    assert_same(run(OptionsFold(settings), log, 13), run(OptionsFold(settings), log))


@pytest.mark.parametrize("rules", RULES)
def test_state_loaded_again_between_any_two_batches_changes_nothing(rules: str) -> None:
    settings = settings_of(rules)
    log = disorderly_log(5, 900, settings)
    kept, loaded = run(OptionsFold(settings), log, 5), run(OptionsFold(settings), log, 5, states={0: ForgetfulState()})
    assert_same(loaded, kept)


@pytest.mark.parametrize(("rules", "mode"), list(itertools.product(RULES, MODES)))
def test_tick_density_changes_nothing_but_origins_on_a_log_in_time_order(rules: str, mode: str) -> None:
    settings = settings_of(rules, options_signal_mode=mode)
    prints = random_prints(7, 1200).with_columns(pl.lit(False).alias("time_suspect"))
    keyed = None
    for tick_ms, only_final in ((1, False), (250, False), (5_000, False), (250, True)):
        log = stamped(with_ticks(prints, tick_ms, wait_ms=6_000, only_final=only_final), settings)
        places = dict(zip(log["trace_id"].to_list(), range(log.height), strict=True))
        found = packets(run(OptionsFold(settings), log)).sort("id")
        assert found["member_first_offset"].to_list() == [places[ids[0]] for ids in found["members"].to_list()]
        values = found.drop("origin_offset", "member_first_offset", "member_last_offset", "seq")
        keyed = values if keyed is None else keyed
        assert values.equals(keyed)


def test_the_worked_example_is_decided_tick_by_tick() -> None:
    names = {CONTRACT_A: (1000, 1200), CONTRACT_B: (1300, 1600), CONTRACT_C: (1700, 2050)}
    events: list[tuple[float, dict[str, Any]]] = [
        (ts, option_print(ts, option_contract_id=contract, size=500)) for contract, times in names.items() for ts in times
    ]
    events += [(w + 0.5, tick(w)) for w in range(250, 3501, 250)]
    rows = [row for _, row in sorted(events, key=lambda event: event[0])]
    for rules in RULES:
        settings = settings_of(rules)
        log = stamped(tape(rows), settings)
        found = packets(run(OptionsFold(settings), log))
        tick_of = dict(log.filter(pl.col("w").is_not_null()).select("_offset", "w").iter_rows())
        decided = [(row["option_contract_id"], tick_of[row["origin_offset"]]) for row in found.iter_rows(named=True)]
        assert decided == [(CONTRACT_A, 2250), (CONTRACT_B, 2750), (CONTRACT_C, 3250)]
        assert found["id"].to_list() == [f"flowpacket:{contract}:{times[0]}:{times[-1]}" for contract, times in names.items()]


def test_twenty_small_fills_are_one_order_under_standard_and_nothing_under_reference() -> None:
    fills = [option_print(START_MS + 15 * n, price=2.0, size=20) for n in range(20)]
    rows = [*fills, tick(START_MS + 2_000)]
    settings = settings_of("standard")
    found = packets(run(OptionsFold(settings), stamped(tape(rows), settings)))
    assert found.height == 1
    assert found.select("total_premium", "count", "pass_count").row(0) == (80_000.0, 20, 0)
    assert found["verdict_reasons"].to_list() == [["parent:keep:ask-side"]]
    settings = settings_of("reference")
    assert packets(run(OptionsFold(settings), stamped(tape(rows), settings))).is_empty()


def test_the_reference_example_of_clustering() -> None:
    contract = "AAPL-2025-02-21-200-C"
    quote = {"nbbo_bid": 2.0, "nbbo_ask": 2.2, "nbbo_ts": 1000, "quote_source": "event", "option_contract_id": contract}
    prints = [(1000, 2.20, 100), (1200, 2.25, 200), (1450, 2.10, 50), (1501, 2.20, 10)]
    rows = [option_print(ts, price=price, size=size, **quote) for ts, price, size in prints]
    fold = fold_of("reference", options_signal_mode="all")
    first = packets(run(fold, tape([*rows, tick(4000)]))).row(0, named=True)
    expected = {
        "id": f"flowpacket:{contract}:1000:1450", "count": 3, "total_size": 350, "total_premium": 775.0, "total_notional": 77500.0,
        "first_price": 2.2, "last_price": 2.1, "window_ms": 500, "nbbo_aa_count": 1, "nbbo_a_count": 1, "nbbo_mid_count": 1,
        "nbbo_coverage_ratio": 1.0, "nbbo_aggressive_buy_ratio": 1.0, "nbbo_aggressive_sell_ratio": 0.0, "nbbo_inside_ratio": 0.3333,
        "nbbo_aggressive_ratio": 0.6667, "nbbo_mid": 2.1, "nbbo_spread": 0.2, "nbbo_age_ms": 450, "nbbo_stale": 0, "nbbo_missing": 0,
    }  # fmt: skip
    assert {name: first[name] for name in expected} == expected


def test_a_symmetric_tape_buys_as_much_as_it_sells() -> None:
    settings = settings_of("standard", options_signal_mode="all")
    log = stamped(with_ticks(random_prints(1, 100_000, contracts=400), 250), settings)
    members = packets(run(OptionsFold(settings), log)).select("members").explode("members").rename({"members": "trace_id"})
    prints = members.join(log.select("trace_id", "nbbo_side", "size", "notional", "may_sign"), on="trace_id")
    signed = prints.filter(pl.col("may_sign"), pl.col("nbbo_side").is_in(["AA", "A", "B", "BB"]))
    bought = signed.filter(pl.col("nbbo_side").is_in(["AA", "A"]))
    assert signed.height > 50_000
    for share in (bought.height / signed.height, *(float(bought[name].sum()) / float(signed[name].sum()) for name in ("size", "notional"))):
        assert 0.48 <= share <= 0.52


@pytest.mark.parametrize("rules", RULES)
def test_every_eligible_print_is_in_exactly_one_packet_when_all_pass(rules: str) -> None:
    settings = settings_of(rules, options_signal_mode="all")
    log = disorderly_log(21, 4000, settings).with_columns(pl.col("is_cancel") & False)
    log = stamped(log, settings)
    found = packets(run(OptionsFold(settings), log, 700))
    eligible = log.filter(pl.col("w").is_null(), ~pl.col("is_excluded").fill_null(False))["trace_id"]
    members = found["members"].explode()
    assert found["member_count"].sum() == eligible.len() == members.len()
    assert sorted(members.to_list()) == sorted(eligible.to_list())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rules", RULES)
def test_the_row_by_row_oracle_agrees(rules: str, seed: int) -> None:
    settings = settings_of(rules, options_signal_mode=MODES[seed % 3])
    prints = random_prints(
        100 + seed, 900, disorder_ms=(0, 40, 600)[seed // 2 % 3], late_share=0.1, span_ms=(None, 3_000, 200_000)[seed // 3]
    )
    log = stamped(with_ticks(prints, (1, 250, 1000)[seed % 3]), settings)
    fold = OptionsFold(settings)
    result = run(fold, log, (None, 100, 13)[seed % 3])
    oracle = OptionsOracle(settings, RULE_SETS[rules], fold.config)
    oracle.feed(log.to_dicts())
    found = packets(result).to_dicts()
    assert [row["id"] for row in found] == [row["id"] for row in oracle.packets]
    for mine, expected in zip(found, oracle.packets, strict=True):
        assert {name: mine[name] for name in expected} == expected
        assert not [name for name, value in mine.items() if name not in expected and value is not None]
    signal = result.outputs[topics.OPTIONS_SIGNAL].select("trace_id", "nbbo_side", "signal_reasons", "origin_offset").to_dicts()
    assert signal == oracle.signal


def test_late_prints_join_an_open_cluster_or_form_one_that_the_next_tick_decides() -> None:
    rows = [
        option_print(START_MS + 100, size=500),
        tick(START_MS + 250),
        option_print(START_MS + 200, size=500, arrived_late=True),
        option_print(START_MS + 50, size=500, arrived_late=True),
        option_print(START_MS - 900, size=500, arrived_late=True),
        tick(START_MS + 500),
        option_print(START_MS + 90, size=500, arrived_late=True),
        tick(START_MS + 2_000),
    ]
    settings = settings_of()
    found = packets(run(OptionsFold(settings), stamped(tape(rows), settings)))
    name = f"flowpacket:{CONTRACT_A}"
    assert found.select("id", "count", "origin_offset").rows() == [
        (f"{name}:{START_MS + 50}:{START_MS + 50}:late:5", 2, 5),
        (f"{name}:{START_MS + 100}:{START_MS + 200}", 2, 7),
        (f"{name}:{START_MS + 90}:{START_MS + 90}:late:7", 1, 7),
    ]


def test_a_print_before_the_opening_one_joins_and_leaves_the_start() -> None:
    rows = [option_print(START_MS + 300, size=500), option_print(START_MS + 260, size=500), tick(START_MS + 2_000)]
    settings = settings_of()
    found = packets(run(OptionsFold(settings), stamped(tape(rows), settings)))
    assert found.select("start_ts", "end_ts", "count").row(0) == (START_MS + 300, START_MS + 300, 2)


def test_a_record_whose_seq_does_not_rise_within_its_run_is_ignored_and_counted() -> None:
    rows = [
        option_print(START_MS, size=500, seq=5),
        option_print(START_MS + 1, size=500, seq=5),
        option_print(START_MS + 2, size=500, seq=3, run="run-2"),
        tick(START_MS + 2_000, seq=4),
        tick(START_MS + 2_000, seq=6),
    ]
    settings = settings_of()
    log = stamped(tape(rows), settings)
    for batch in (None, 1, 2):
        result = run(OptionsFold(settings), log, batch)
        assert packets(result).select("count", "origin_offset").rows() == [(2, 4)]
        assert result.outputs[topics.OPTIONS_SIGNAL]["origin_offset"].to_list() == [0, 2]


def test_cancels_and_excluded_prints_belong_to_no_packet() -> None:
    rows = [
        option_print(START_MS, size=500),
        option_print(START_MS + 1, size=500, is_cancel=True, condition_tag="cancel"),
        option_print(START_MS + 2, size=500, is_excluded=True),
        tick(START_MS + 2_000),
    ]
    for rules, mode in itertools.product(RULES, MODES):
        settings = settings_of(rules, options_signal_mode=mode)
        log = stamped(tape(rows), settings)
        result = run(OptionsFold(settings), log)
        assert packets(result)["count"].to_list() == [1]
        assert result.outputs[topics.OPTIONS_SIGNAL]["origin_offset"].to_list() == [0]
        assert log["signal_reasons"].to_list()[1:3] == [["reject:cancel"], ["reject:excluded"]]


def test_prints_that_another_configuration_stamped_are_judged_again() -> None:
    prints = with_ticks(random_prints(2, 400), 250)
    for rules in RULES:
        settings = settings_of(rules)
        foreign = stamped(prints, settings_of(rules, options_signal_min_notional=1.0))
        assert_same(run(OptionsFold(settings), foreign), run(OptionsFold(settings), stamped(prints, settings)))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"price": -1.0}, "price was -1.0"),
        ({"price": float("nan")}, "price was NaN"),
        ({"price": float("inf")}, "price was inf"),
        ({"size": 0}, "size was 0"),
        ({"source_ts": -5}, "source_ts was -5"),
        ({"trace_id": ""}, "trace_id was empty"),
        ({"underlying_id": ""}, "underlying_id was empty"),
        ({"price": 1e9, "size": 1_000_000}, "notional was"),
    ],
)
def test_an_invalid_print_is_refused_with_its_reason(values: dict[str, Any], text: str) -> None:
    rows = [option_print(START_MS, size=500), {**option_print(START_MS + 1), **values}, tick(START_MS + 2_000)]
    result = run(fold_of(), tape(rows))
    assert [(refused.offset, refused.stage) for refused in result.refused] == [(1, "validate")]
    assert text in result.refused[0].error
    assert packets(result)["count"].to_list() == [1]


def test_a_contract_that_does_not_parse_is_refused() -> None:
    rows = [{**option_print(START_MS), "option_contract_id": "SPY-2025"}, option_print(START_MS + 1, size=500), tick(START_MS + 2_000)]
    result = run(fold_of(), tape(rows))
    assert [(refused.offset, refused.error) for refused in result.refused] == [(0, "option_contract_id was SPY-2025; allowed: a contract")]
    assert packets(result).height == 1


def test_a_print_whose_premium_does_not_fit_is_refused_by_the_fold_alone() -> None:
    huge = [option_print(START_MS + n, price=900_000.0, size=1_000) for n in range(120)]
    result = run(fold_of(options_signal_mode="all"), tape([*huge, tick(START_MS + 2_000)]))
    assert {refused.stage for refused in result.refused} == {"fold"}
    for batch in (1, 50):
        assert_same(run(fold_of(options_signal_mode="all"), tape([*huge, tick(START_MS + 2_000)]), batch), result)


def test_a_contract_hit_by_fifty_thousand_prints_stays_within_the_limits() -> None:
    count = 50_000
    ts = pl.Series("source_ts", [START_MS + n * 499 // count for n in range(count)])
    one = tape([option_print(START_MS)])
    prints = pl.concat([one] * 1).select(pl.all().repeat_by(count).explode()).with_columns(
        ts, pl.int_range(count).alias("_offset"), pl.int_range(1, count + 1).alias("seq"),
        pl.format("synthetic-1-test-op-{}", pl.int_range(count)).alias("trace_id"),
    )  # fmt: skip
    closing = tape([tick(START_MS + 2_000, seq=count + 1, _offset=count)])
    settings = settings_of(options_signal_mode="all")
    log = stamped(pl.concat([prints, closing]), settings)
    state = MemoryState()
    largest = 0
    for part in range(0, log.height, 8_000):
        result = run(OptionsFold(settings), log[part : part + 8_000], states={0: state})
        largest = max(largest, *(len(row) for row in state.rows.values()))
    assert largest < 900_000
    found = packets(result).row(0, named=True)
    assert (found["count"], len(found["members"]), found["member_last_offset"]) == (count, 1000, count - 1)


def test_rows_for_cancels_leave_when_tick_time_says_so() -> None:
    rows = [option_print(START_MS, size=500), tick(START_MS + 2_000), tick(START_MS + 900_000), tick(START_MS + 1_100_000)]
    settings = settings_of()
    log = stamped(tape(rows), settings)

    def kept(upto: int, batch: int | None) -> list[bytes]:
        return [key for key in run(OptionsFold(settings), log[:upto], batch).states[0].rows if key.startswith(b"kept:")]

    for batch in (1, None):
        assert [len(kept(upto, batch)) for upto in (1, 2, 3, 4)] == [0, 1, 1, 0]


def test_signal_prints_carry_their_origin_and_what_decided() -> None:
    settings = settings_of()
    log = stamped(tape([option_print(START_MS, size=500), tick(START_MS + 250)], partition=3), settings)
    signal = run(OptionsFold(settings), log).outputs[topics.OPTIONS_SIGNAL]
    assert dict(signal.schema) == dict(frame_schema("SignalPrint"))
    row = signal.row(0, named=True)
    assert (row["origin_partition"], row["origin_offset"], row["rules"], row["config"]) == (3, 0, "standard", settings.config_hash)


def test_packets_have_the_columns_of_their_record() -> None:
    settings = settings_of()
    log = stamped(tape([option_print(START_MS, size=500), tick(START_MS + 2_000)]), settings)
    assert dict(packets(run(OptionsFold(settings), log)).schema) == dict(frame_schema("FlowPacket"))


def several_partitions(settings: Settings) -> pl.DataFrame:
    logs = [
        disorderly_log(seed, 300 + 50 * seed, settings).with_columns(pl.lit(seed).cast(pl.Int64).alias("_partition")) for seed in range(4)
    ]
    quiet = stamped(tape([tick(START_MS)], partition=9), settings)
    return pl.concat([*logs, quiet])


@pytest.mark.parametrize("rules", RULES)
def test_partitions_folded_at_once_give_what_each_gives_on_its_own(rules: str) -> None:
    settings = settings_of(rules)
    log = several_partitions(settings)
    fold = OptionsFold(settings)
    together = run(fold, log)
    for partition, rows in split_by_partition(log):
        alone = run(fold, rows)
        assert together.states[partition].rows == alone.states[partition].rows
        for topic, frame in alone.outputs.items():
            assert frame.equals(together.outputs[topic].filter(pl.col("origin_partition") == partition))


def test_a_partition_that_raises_does_not_hold_up_the_others() -> None:
    settings = settings_of(options_signal_mode="all")
    huge = tape([*(option_print(START_MS + n, price=900_000.0, size=1_000) for n in range(120)), tick(START_MS + 2_000)], partition=7)
    result = run(OptionsFold(settings), pl.concat([several_partitions(settings), stamped(huge, settings)]))
    expected = run(OptionsFold(settings), several_partitions(settings))
    assert {refused.partition for refused in result.refused} == {7}
    for partition, state in expected.states.items():
        assert result.states[partition].rows == state.rows
    assert set(result.outputs[topics.FLOW_PACKETS]["origin_partition"]) >= {0, 1, 2, 3, 7}
