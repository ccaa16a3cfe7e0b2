from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from flowapp.core.placement import SIDE
from flowapp.core.rules import SignalThresholds
from flowapp.core.signal import BIT, SignalInput, is_sweep_word, masks_of, passes, reason_lists, reasons, verdict
from flowapp.settings import Settings

ASK, SWEEP, LARGE, AUTO = "keep:ask-side", "keep:sweep-or-iso", "keep:large-contract-count", "keep:auto-large"
MIN, ETF, BID, MID, MISSING, NONE = (
    f"reject:{name}"
    for name in (
        "min-notional",
        "etf-min-notional",
        "bid-side-min-notional",
        "mid-min-notional",
        "missing-nbbo-min-notional",
        "no-signal-rule",
    )
)
# notional, size, side, is_etf, condition, reasons in smart-money, reasons in balanced (reference A.2)
TABLE: list[tuple[Any, ...]] = [
    (9999.99, 100, "A", False, "", [MIN], [ASK]),
    (10000, 100, "A", False, "", [ASK], [ASK]),
    (10000, 499, "MID", False, "", [MID], [MID]),
    (20000, 499, "MID", False, "", [NONE], [NONE]),
    (20000, 500, "MID", False, "", [LARGE], [LARGE]),
    (15000, 600, "MID", False, "", [MID], [LARGE]),
    (15000, 600, "MID", False, "SWEEP", [LARGE], [SWEEP, LARGE]),
    (15000, 100, "MID", False, "sweep", [NONE], [SWEEP]),
    (25000, 100, "MID", False, "ISO", [SWEEP], [SWEEP]),
    (24999, 100, "B", False, "SWEEP", [BID], [SWEEP]),
    (25000, 100, "B", False, "", [NONE], [NONE]),
    (25000, 100, "B", False, "SWEEP", [SWEEP], [SWEEP]),
    (25000, 500, "BB", False, "", [LARGE], [LARGE]),
    (49999, 100, "MISSING", False, "", [MISSING], [NONE]),
    (50000, 100, "MISSING", False, "", [NONE], [NONE]),
    (50000, 500, "MISSING", False, "", [LARGE], [LARGE]),
    (50000, 100, "STALE", False, "SWEEP", [SWEEP], [SWEEP]),
    (100000, 100, "MISSING", False, "", [AUTO], [AUTO]),
    (100000, 1, "MID", False, "", [AUTO], [AUTO]),
    (100000, 1, "BB", False, "", [AUTO], [AUTO]),
    (49999, 600, "A", True, "SWEEP", [ETF], [ASK, SWEEP, LARGE]),
    (50000, 100, "A", True, "", [ASK], [ASK]),
    (50000, 100, "MID", True, "", [NONE], [NONE]),
    (120000, 600, "AA", True, "ISO", [AUTO, ASK, SWEEP, LARGE], [AUTO, ASK, SWEEP, LARGE]),
    (5000, 10, "A", False, "", [MIN], [ASK]),
    (12500, 10, "MID", False, "", [MID], [NONE]),
    (12500, 500, "MID", False, "", [MID], [LARGE]),
    (15000, 10, "B", False, "SWEEP", [BID], [SWEEP]),
    (75000, 10, "MID", False, "", [NONE], [AUTO]),
    (25000, 10, "A", True, "", [ETF], [ASK]),
    (25000, 10, "MISSING", False, "", [MISSING], [NONE]),
    (25000, 10, "MISSING", False, "ISO", [MISSING], [SWEEP]),
    (5000, 500, "A", False, "", [MIN], [ASK]),
    (10000, 500, "MID", False, "SWEEP", [LARGE], [LARGE]),
]
FRAME = pl.DataFrame(
    [(float(row[0]), row[1], row[2], row[3], [row[4]] if row[4] else []) for row in TABLE],
    schema={"notional": pl.Float64, "size": pl.Int64, "side": pl.String, "etf": pl.Boolean, "conditions": pl.List(pl.String)},
    orient="row",
)
OF = SignalInput(
    pl.col("notional"), pl.col("side").cast(SIDE).to_physical(), pl.col("size"), pl.col("etf"), is_sweep_word(pl.col("conditions"))
)


@pytest.mark.parametrize(("mode", "column"), [("smart-money", 5), ("balanced", 6)])
def test_decisions_are_those_of_the_reference_table(mode: str, column: int) -> None:
    mask = verdict(SignalThresholds.of(Settings(), mode), OF)
    found = FRAME.select(reasons(mask).alias("reasons"), passes(mask).alias("passed"))
    expected = [row[column] for row in TABLE]
    assert found["reasons"].to_list() == expected
    assert found["passed"].to_list() == [why[0].startswith("keep:") for why in expected]


def test_mode_all_passes_without_a_notional_and_the_others_reject_it() -> None:
    nothing = FRAME.head(1).with_columns(pl.lit(None, pl.Float64).alias("notional"))
    for mode, expected in (("all", ["mode:all"]), ("smart-money", ["reject:min-notional"])):
        mask = verdict(SignalThresholds.of(Settings(), mode), OF) | pl.repeat(0, pl.len(), dtype=pl.UInt32)
        assert nothing.select(reasons(mask)).to_series().to_list() == [expected]


def test_balanced_lowers_a_threshold_and_never_raises_one() -> None:
    low = SignalThresholds.of(Settings(options_signal_min_notional=100.0, options_signal_mode="balanced"))
    assert (low.min_notional, low.large_print_min_notional, low.auto_keep_min_notional) == (100.0, 100.0, 75_000)


def test_masks_and_reason_codes_tell_the_same() -> None:
    masks = np.array([BIT[ASK] | BIT[LARGE], BIT[MIN], 0, BIT["mode:all"] | BIT["nbbo:crossed"]], np.uint32)
    lists = reason_lists(masks)
    assert lists.to_list() == [[ASK, LARGE], [MIN], [], ["mode:all", "nbbo:crossed"]]
    assert masks_of(lists).tolist() == masks.tolist()
    assert reason_lists(masks[:1], np.array([True])).to_list() == [[f"parent:{ASK}", f"parent:{LARGE}"]]
