from __future__ import annotations

import polars as pl
import pytest

from flowapp.core.conditions import CONDITION_COLUMNS, POLICIES, TAGS, WORDS, condition_columns, policy_of

OPRA = {
    "I": "AUTO", "S": "ISOI", "J": "REOP", "a": "SLAN", "b": "SLAI", "c": "SLCN", "e": "SLFT", "f": "MLET", "k": "TLAT",
    "t": "CBMO", "u": "MCTP", "v": "EXHT", "A": "CANC", "B": "OSEQ", "D": "LATE",
}  # fmt: skip


def columns(*conditions: list[str] | None, available: bool = True) -> pl.DataFrame:
    return condition_columns(pl.DataFrame({"conditions": conditions}, schema={"conditions": pl.List(pl.String)}), OPRA, available)


@pytest.mark.parametrize(
    ("code", "alert", "sign", "baseline", "tag", "others"),
    [
        ("I", True, True, True, "electronic", set()),
        ("S", True, True, True, "sweep", {"is_sweep"}),
        ("J", False, False, True, "reopening", set()),
        ("a", True, True, True, "auction", {"is_weak"}),
        ("b", True, True, True, "auction", {"is_weak", "is_sweep"}),
        ("c", False, False, True, "cross", set()),
        ("e", True, True, True, "floor", {"is_weak"}),
        ("f", False, False, False, "multi_leg", {"is_multi_leg"}),
        ("k", False, False, False, "stock_option", {"is_multi_leg"}),
        ("t", False, False, False, "proprietary", {"is_excluded", "is_multi_leg"}),
        ("u", False, False, False, "compression", {"is_excluded"}),
        ("v", False, False, False, "extended", set()),
        ("A", False, False, False, "cancel", {"is_cancel"}),
        ("B", False, False, True, "late", set()),
        ("D", False, False, True, "late", set()),
    ],
)
def test_a_class_decides_as_the_policy_table_says(code: str, alert: bool, sign: bool, baseline: bool, tag: str, others: set[str]) -> None:
    row = columns([code]).row(0, named=True)
    assert (row["may_alert"], row["may_sign"], row["may_baseline"], row["condition_tag"]) == (alert, sign, baseline, tag)
    flags = {"is_weak", "is_cancel", "is_excluded", "is_sweep", "is_multi_leg"}
    assert {name for name in flags if row[name]} == others
    assert {row[name] for name in flags - others} == {False}
    assert (row["conditions_unavailable"], row["conditions_unmapped"]) == (False, False)


def test_several_conditions_combine_to_the_most_restrictive_and_a_sweep_stays_one() -> None:
    row = columns(["S", "c"]).row(0, named=True)
    assert (row["condition_tag"], row["may_alert"], row["may_sign"], row["may_baseline"], row["is_sweep"]) == (
        "cross",
        False,
        False,
        True,
        True,
    )


def test_a_code_that_the_table_does_not_know_may_neither_alert_nor_sign() -> None:
    alone, beside = columns(["?"], ["S", "?"]).rows(named=True)
    for row in (alone, beside):
        assert (row["may_alert"], row["may_sign"], row["conditions_unmapped"], row["condition_tag"]) == (False, False, True, "unmapped")
        assert row["is_cancel"] is None
    assert (alone["is_sweep"], beside["is_sweep"]) == (None, True)


def test_a_feed_without_conditions_may_alert_and_sign_and_knows_no_more() -> None:
    row = columns(["S"], available=False).row(0, named=True)
    assert (row["may_alert"], row["may_sign"], row["may_baseline"], row["conditions_unavailable"]) == (True, True, True, True)
    assert row["is_sweep"] is None
    assert row["condition_tag"] is None


def test_a_print_without_conditions_in_a_feed_that_carries_them_is_regular() -> None:
    for row in columns([], None).rows(named=True):
        assert (row["condition_tag"], row["may_alert"], row["is_sweep"]) == ("electronic", True, False)


def test_columns_keep_the_order_of_the_rows_and_their_types() -> None:
    found = columns(["S"], ["I"], ["S"], ["A"])
    assert dict(found.schema) == dict(CONDITION_COLUMNS)
    assert found["condition_tag"].to_list() == ["sweep", "electronic", "sweep", "cancel"]


def test_every_class_has_a_known_tag_and_words_name_classes() -> None:
    assert {policy.tag for policy in POLICIES.values()} < set(TAGS)
    assert set(WORDS.values()) <= set(POLICIES)
    assert policy_of(["SWEEP"], WORDS)["is_sweep"]
    assert policy_of(["FILL"], WORDS)["condition_tag"] == "electronic"
