"""Vendors' condition codes and what they permit."""

from __future__ import annotations

import polars as pl
import pytest

from flowapp.core.conditions import POLICIES
from flowapp.edge.conditions import VOCABULARIES, equity_columns, option_columns


def prints(*codes: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"conditions": list(codes)}, schema={"conditions": pl.List(pl.String)})


def test_every_code_of_every_vendor_has_a_class_with_a_policy() -> None:
    for name, vocabulary in VOCABULARIES.items():
        assert set(vocabulary.classes.values()) <= set(POLICIES), name
        assert vocabulary.no_price <= set(vocabulary.classes), name
        assert vocabulary.odd_lot <= set(vocabulary.classes), name


def test_the_option_vendors_agree_on_all_conditions_of_opra() -> None:
    classes = set(VOCABULARIES["opra"].classes.values())
    assert len(classes) == 33
    assert set(VOCABULARIES["massive"].classes.values()) == classes
    assert set(VOCABULARIES["thetadata"].classes.values()) == classes


@pytest.mark.parametrize(
    ("letter", "tag", "alert", "sign", "baseline"),
    [
        ("I", "electronic", True, True, True), ("S", "sweep", True, True, True), ("J", "reopening", False, False, True),
        ("a", "auction", True, True, True), ("b", "auction", True, True, True), ("c", "cross", False, False, True),
        ("d", "cross", False, False, True), ("e", "floor", True, True, True), ("f", "multi_leg", False, False, False),
        ("j", "multi_leg", False, False, False), ("k", "stock_option", False, False, False), ("s", "stock_option", False, False, False),
        ("t", "proprietary", False, False, False), ("u", "compression", False, False, False), ("v", "extended", False, False, False),
        ("A", "cancel", False, False, False), ("G", "cancel", False, False, False), ("B", "late", False, False, True),
        ("D", "late", False, False, True), ("?", "unmapped", False, False, False),
    ],
)  # fmt: skip
def test_opra_letters_permit_what_the_policy_says(letter: str, tag: str, alert: bool, sign: bool, baseline: bool) -> None:
    row = option_columns(prints([letter]), "opra").row(0, named=True)
    assert (row["condition_tag"], row["may_alert"], row["may_sign"], row["may_baseline"]) == (tag, alert, sign, baseline)
    assert row["conditions_unmapped"] is (letter == "?")
    assert row["is_sweep"] is ({"S": True, "b": True, "d": True, "?": None}.get(letter, False))


def test_a_feed_without_conditions_says_so_and_is_not_held_back() -> None:
    row = option_columns(prints([]), "none").row(0, named=True)
    assert row["conditions_unavailable"] is True
    assert row["may_alert"] is row["may_sign"] is True
    assert row["is_sweep"] is None
    equity = equity_columns(prints([]), "none").row(0, named=True)
    assert equity["may_price"] is None
    assert equity["is_odd_lot"] is None


def test_an_average_price_means_different_things_on_different_tapes() -> None:
    cts, utp = (equity_columns(prints(["B"]), name).row(0, named=True) for name in ("cts", "utp"))
    assert (cts["may_sign"], cts["may_price"]) == (False, False)
    assert (utp["may_sign"], utp["may_price"]) == (True, True)


@pytest.mark.parametrize(
    ("codes", "sign", "price", "odd"),
    [
        ([" "], True, True, False), (["@", "F"], True, True, False), (["@", "F", "I"], True, False, True),
        (["@", "T"], False, False, False), (["@", "4"], False, False, False), (["@", "7"], False, False, False),
        (["@", "P"], False, False, False), (["O", "X"], False, True, False), (["M"], False, False, False), (["?"], False, False, False),
    ],
)  # fmt: skip
def test_equity_conditions_say_who_may_be_signed_and_who_sets_a_price(codes: list[str], sign: bool, price: bool, odd: bool) -> None:
    row = equity_columns(prints(codes), "utp").row(0, named=True)
    assert (row["may_sign"], row["may_price"], row["is_odd_lot"]) == (sign, price, odd)


def test_synthetic_words_cover_what_the_market_says() -> None:
    from flowapp.simulator.scenarios import CONDITION_WORDS

    rows = option_columns(prints(*([word] for word in CONDITION_WORDS)), "synthetic")
    assert not rows["conditions_unmapped"].any()
    assert dict(zip(CONDITION_WORDS, rows["condition_tag"], strict=True))["CANCEL"] == "cancel"
