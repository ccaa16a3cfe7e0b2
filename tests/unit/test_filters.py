from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from flowapp.core.filters import FlowFilter, filter_key, packet_matches, print_matches
from flowapp.core.placement import SIDES
from flowapp.core.rules import REFERENCE, STANDARD, RuleSet
from flowapp.errors import SettingError

PACKET = {"is_etf": None, "option_type": None, "structure_rights": None, "total_notional": 50_000.0} | {
    f"nbbo_{side.lower()}_count": 0 for side in SIDES
}
SCHEMA = {"is_etf": pl.Boolean, "option_type": pl.String, "structure_rights": pl.String, "total_notional": pl.Float64}


def matches(rules: RuleSet, wanted: FlowFilter, **packet: Any) -> bool:
    frame = pl.DataFrame([PACKET | packet], schema_overrides=SCHEMA)
    return bool(frame.select(packet_matches(wanted, rules)).item())


@pytest.mark.parametrize(
    ("document", "key"),
    [
        (None, "{}"),
        ({"nbboSides": ["B", "AA", "AA"], "minNotional": 1}, '{"nbboSides":["AA","B"],"minNotional":1}'),
        ({"view": "raw", "securityTypes": []}, '{"view":"raw"}'),
        ({"minNotional": 0.5}, '{"minNotional":0.5}'),
    ],
)
def test_equal_filters_have_equal_keys(document: dict[str, Any] | None, key: str) -> None:
    assert filter_key(None if document is None else FlowFilter.parse(document)) == key


@pytest.mark.parametrize(("rights", "call", "put"), [("C", True, False), ("P", False, True), ("C/P", True, True), (None, False, False)])
def test_standard_finds_structures_by_their_rights_and_the_reference_never(rights: str | None, call: bool, put: bool) -> None:
    for word, expected in (("call", call), ("put", put)):
        wanted = FlowFilter(option_types=(word,))
        assert matches(STANDARD, wanted, structure_rights=rights) is expected
        assert matches(REFERENCE, wanted, structure_rights=rights) is False
        assert matches(REFERENCE, wanted, option_type=word, structure_rights=rights) is True


def test_a_packet_matches_when_any_wanted_side_was_seen() -> None:
    assert matches(STANDARD, FlowFilter(nbbo_sides=("A", "BB")), nbbo_bb_count=1)
    assert not matches(STANDARD, FlowFilter(nbbo_sides=("A",)), nbbo_bb_count=1)


def test_a_packet_without_an_etf_flag_counts_as_stock() -> None:
    assert matches(STANDARD, FlowFilter(security_types=("stock",)))
    assert matches(STANDARD, FlowFilter(security_types=("etf",)), is_etf=True)


def test_absent_values_of_a_print_read_as_the_reference_says() -> None:
    schema = {"signal_pass": pl.Boolean, "is_etf": pl.Boolean, "nbbo_side": pl.String, "option_type": pl.String, "notional": pl.Float64}
    frame = pl.DataFrame([dict.fromkeys(schema)], schema=schema)

    def found(**values: Any) -> bool:
        return bool(frame.select(print_matches(FlowFilter(**values))).item())

    assert found(view="signal", security_types=("stock",), nbbo_sides=("MISSING",), min_notional=0)
    assert not found(option_types=("call", "put"))
    assert not found(min_notional=1)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"view": "all"}, "view was 'all'; allowed: signal, raw"),
        ({"nbboSides": ["X"]}, "nbboSides was ['X']; allowed: AA, A, MID, B, BB, MISSING, STALE"),
        ({"optionTypes": "call"}, "optionTypes was 'call'; allowed: call, put"),
        ({"minNotional": True}, "minNotional was True; allowed: a number"),
    ],
)
def test_a_wrong_filter_entry_names_value_and_what_is_allowed(document: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingError, match="filter entry") as error:
        FlowFilter.parse(document)
    assert text in str(error.value)
