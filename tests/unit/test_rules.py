"""Each correction of the reference that is built: a case that comes out otherwise when its switch is reverted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from flowapp import topics
from flowapp.core import equities
from flowapp.core.fold import run
from flowapp.core.options import OptionsFold
from flowapp.core.rules import REFERENCE, RULE_SETS, STANDARD, OptionRules, RuleSet
from flowapp.settings import Settings
from tests.tapes import START_MS, option_print, tape, tick


def packets(rules: RuleSet, *prints: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    result = run(OptionsFold(Settings(**settings), rules), tape([*prints, tick(START_MS + 5_000)]))
    return result.outputs[topics.FLOW_PACKETS].to_dicts() if topics.FLOW_PACKETS in result.outputs else []


def reverted(switch: str) -> RuleSet:
    changes: dict[str, Any] = {switch: False}
    return replace(STANDARD, **changes)


def test_the_two_rule_sets_differ_in_every_switch() -> None:
    assert set(RULE_SETS) == {"reference", "standard"}
    assert all(getattr(STANDARD, switch) and not getattr(REFERENCE, switch) for switch in STANDARD.switches)


def test_premium_is_dollars() -> None:
    one = option_print(START_MS, price=2.0, size=500, multiplier=10)
    standard, other = packets(STANDARD, one)[0], packets(reverted("premium_in_dollars"), one)[0]
    assert (standard["total_premium"], standard["total_notional"]) == (10_000.0, 10_000.0)
    assert (other["total_premium"], other["total_notional"]) == (1_000.0, 100_000.0)


def test_side_tolerance_stays_within_the_spread() -> None:
    one = option_print(START_MS, price=1.005, size=500, nbbo_bid=1.0, nbbo_ask=1.01)
    standard = packets(STANDARD, one, options_signal_mode="all")[0]
    other = packets(reverted("tolerance_within_spread"), one, options_signal_mode="all")[0]
    assert (standard["nbbo_mid_count"], other["nbbo_a_count"]) == (1, 1)


def test_a_crossed_quote_has_no_side_and_says_why() -> None:
    one = option_print(START_MS, price=2.0, size=1000, nbbo_bid=2.1, nbbo_ask=2.0)
    standard, other = packets(STANDARD, one)[0], packets(reverted("tolerance_within_spread"), one)[0]
    assert (standard["nbbo_missing_count"], standard["nbbo_missing"]) == (1, 0)
    assert standard["verdict_reasons"][-1] == "nbbo:crossed"
    assert (other["nbbo_a_count"], "nbbo:crossed" in other["verdict_reasons"]) == (1, False)


@pytest.mark.parametrize(("quote_source", "feed_ts"), [("with_trade", None), ("event", START_MS)])
def test_quote_age_follows_how_the_quote_was_observed(quote_source: str, feed_ts: int | None) -> None:
    one = option_print(START_MS, size=500, nbbo_ts=START_MS - 60_000, quote_source=quote_source, quote_feed_ts=feed_ts)
    standard = packets(STANDARD, one)[0]
    other = packets(reverted("quote_age_by_source"), one)[0]
    assert (standard["nbbo_a_count"], standard["nbbo_stale"], standard["nbbo_ask"]) == (1, 0, 2.0)
    assert (other["nbbo_stale_count"], other["nbbo_stale"], other["nbbo_ask"]) == (1, 1, None)


def test_one_age_limit_serves_the_print_and_its_packet() -> None:
    one = option_print(START_MS, size=500, nbbo_ts=START_MS - 1_200, quote_source="sampled")
    standard, other = packets(STANDARD, one)[0], packets(reverted("quote_age_by_source"), one)[0]
    assert (standard["nbbo_a_count"], standard["nbbo_stale_count"]) == (1, 0)
    assert (other["nbbo_a_count"], other["nbbo_stale_count"]) == (0, 1)
    assert other["verdict_reasons"] == ["keep:auto-large", "keep:ask-side", "keep:large-contract-count"]


def test_every_print_is_clustered_and_the_parent_is_asked() -> None:
    fills = [option_print(START_MS + n, size=20) for n in range(20)]
    assert [packet["count"] for packet in packets(STANDARD, *fills)] == [20]
    assert packets(reverted("cluster_every_print"), *fills) == []
    mixed = [option_print(START_MS, size=20), option_print(START_MS + 1, size=500)]
    assert packets(STANDARD, *mixed)[0]["count"] == 2
    assert packets(reverted("cluster_every_print"), *mixed)[0]["count"] == 1


def test_the_policy_table_decides_who_may_be_signed_and_what_is_a_sweep() -> None:
    leg = option_print(START_MS, size=600, conditions=["f"], may_alert=False, may_sign=False, may_baseline=False, is_multi_leg=True)
    standard, other = packets(STANDARD, leg)[0], packets(reverted("condition_policy"), leg)[0]
    assert (standard["nbbo_a_count"], standard["unsigned_count"], standard["alert_count"]) == (0, 1, 0)
    assert standard["verdict_reasons"] == ["keep:auto-large", "keep:large-contract-count"]
    assert (other["nbbo_a_count"], other["unsigned_count"]) == (1, 0)
    sweep = option_print(START_MS, size=150, conditions=["S"], is_sweep=True)
    assert packets(STANDARD, sweep)[0]["verdict_reasons"] == ["keep:ask-side", "keep:sweep-or-iso"]
    assert packets(reverted("condition_policy"), sweep)[0]["verdict_reasons"] == ["keep:ask-side"]


def test_the_parent_looks_at_what_may_alert_only() -> None:
    cross = {"may_alert": False, "may_sign": False}
    fills = [option_print(START_MS + n, size=20, **cross) for n in range(20)]
    assert packets(STANDARD, *fills) == []


@pytest.mark.parametrize(("bought", "sold", "reason"), [(300, 100, ["parent:keep:ask-side"]), (100, 300, None), (200, 200, None)])
def test_the_parent_takes_the_side_with_the_larger_size(bought: int, sold: int, reason: list[str] | None) -> None:
    quote = {"nbbo_bid": 0.4, "nbbo_ask": 0.5}
    prints = [option_print(START_MS + n, price=0.5, size=bought // 4, **quote) for n in range(4)]
    prints += [option_print(START_MS + 10 + n, price=0.4, size=sold // 4, **quote) for n in range(4)]
    assert [packet["verdict_reasons"] for packet in packets(STANDARD, *prints)] == ([reason] if reason else [])


def test_rules_without_a_name_have_a_configuration_of_their_own() -> None:
    settings = Settings()
    assert OptionRules.of(settings).config == settings.config_hash
    configs = {OptionRules.of(settings, reverted(switch)).config for switch in STANDARD.switches} | {settings.config_hash}
    assert len(configs) == len(STANDARD.switches) + 1


def test_the_reference_has_two_age_limits_and_standard_one() -> None:
    reference = OptionRules.of(Settings(rules="reference"))
    assert (reference.max_age_ms, reference.packet_max_age_ms) == (1500, 1000)
    standard = OptionRules.of(Settings())
    assert (standard.max_age_ms, standard.packet_max_age_ms) == (1500, 1500)


def test_equity_prints_are_stamped_with_side_and_staleness() -> None:
    prints = pl.DataFrame(
        {
            "source_ts": [10_000] * 4, "price": [10.1] * 4, "quote_bid": [10.0, 10.0, None, 10.0], "quote_ask": [10.1, 10.1, None, 10.1],
            "quote_ts": [9_000, 8_999, None, 8_000], "quote_source": ["sampled", "sampled", None, "event"],
            "quote_feed_ts": [None, None, None, 9_900],
        }
    )  # fmt: skip
    settings = Settings()
    stamped = equities.stamp(prints, settings)
    assert stamped["nbbo_side"].to_list() == ["A", "STALE", "MISSING", "A"]
    assert stamped["quote_stale"].to_list() == [False, True, True, False]
    assert stamped["config"].to_list() == [settings.config_hash] * 4
    assert equities.stamp(prints, Settings(rules="reference"))["nbbo_side"].to_list() == ["A", "STALE", "MISSING", "STALE"]
