"""The signal decision (reference 4.5): one set of expressions, for prints and for clusters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core.placement import AA, BB, MID, MISSING, STALE, A, B
from flowapp.core.rules import MODE_ALL, SignalThresholds

# A verdict is a mask over REASONS, in the order in which they are stated.
REASONS = (
    "mode:all", "keep:auto-large", "keep:ask-side", "keep:sweep-or-iso", "keep:large-contract-count",
    "reject:min-notional", "reject:etf-min-notional", "reject:bid-side-min-notional", "reject:mid-min-notional",
    "reject:missing-nbbo-min-notional", "reject:no-signal-rule", "reject:cancel", "reject:excluded", "nbbo:crossed",
)  # fmt: skip
BIT = {reason: 1 << place for place, reason in enumerate(REASONS)}
PASS_MASK = sum(bit for reason, bit in BIT.items() if reason.startswith(("mode:", "keep:")))
CROSSED = BIT["nbbo:crossed"]
PARENT_PREFIX = "parent:"
SWEEP_WORDS = ("SWEEP", "ISO")


@dataclass(frozen=True)
class SignalInput:
    """What the decision looks at: dollars, index into SIDES, contracts, flags."""

    notional: pl.Expr
    side: pl.Expr
    size: pl.Expr
    is_etf: pl.Expr
    is_sweep: pl.Expr


def verdict(limits: SignalThresholds, of: SignalInput) -> pl.Expr:
    """Return the mask of reasons (UInt32); it has passed when it meets PASS_MASK."""
    if limits.mode == MODE_ALL:
        return pl.lit(BIT["mode:all"], dtype=pl.UInt32)
    notional, side, size = of.notional.fill_null(0.0), of.side.fill_null(MISSING), of.size
    is_etf, is_sweep = of.is_etf.fill_null(False), of.is_sweep.fill_null(False)
    at_bid, unplaced, at_ask = (side == B) | (side == BB), (side == MISSING) | (side == STALE), (side == AA) | (side == A)
    keeps = (
        _bit(notional >= limits.auto_keep_min_notional, "keep:auto-large")
        + _bit(at_ask & (notional >= limits.min_notional), "keep:ask-side")
        + _bit(is_sweep & (notional >= limits.sweep_min_notional), "keep:sweep-or-iso")
        + _bit(
            (size >= limits.large_print_min_contracts) & (notional >= limits.large_print_min_notional),
            "keep:large-contract-count",
        )
    )
    return (
        pl.when(notional < limits.min_notional)
        .then(_lit("reject:min-notional"))
        .when(is_etf & (notional < limits.etf_min_notional))
        .then(_lit("reject:etf-min-notional"))
        .when(at_bid & (notional < limits.bid_side_min_notional))
        .then(_lit("reject:bid-side-min-notional"))
        .when((side == MID) & ~is_sweep & (notional < limits.mid_min_notional))
        .then(_lit("reject:mid-min-notional"))
        .when(unplaced & (notional < limits.missing_nbbo_min_notional))
        .then(_lit("reject:missing-nbbo-min-notional"))
        .when(keeps == 0)
        .then(_lit("reject:no-signal-rule"))
        .otherwise(keeps)
    )


def passes(mask: pl.Expr) -> pl.Expr:
    """Tell whether a verdict lets the print or cluster through."""
    return (mask & PASS_MASK) != 0


def reasons(mask: pl.Expr) -> pl.Expr:
    """Return a verdict's reason codes, in order."""
    return mask.map_batches(lambda masks: reason_lists(masks.to_numpy()), return_dtype=pl.List(pl.String), is_elementwise=True)


def reason_lists(masks: npt.NDArray[np.uint32], parent: npt.NDArray[np.bool_] | None = None) -> pl.Series:
    """Return the reason codes of masks; where `parent` is set they are the parent's."""
    keys = masks.astype(np.int64)
    if parent is not None:
        keys |= parent.astype(np.int64) << len(REASONS)
    distinct, places = np.unique(keys, return_inverse=True)
    lists = _lists(tuple(distinct.tolist()))
    return lists.to_frame()[places].to_series() if distinct.size != 1 else lists.new_from_index(0, keys.size)


def masks_of(lists: pl.Series) -> npt.NDArray[np.uint32]:
    """Return the masks of stamped reason codes; codes that are not ours count for nothing."""
    codes = lists.list.join(",").fill_null("")
    distinct = codes.unique()
    known = [sum(BIT.get(reason, 0) for reason in text.split(",")) for text in distinct]
    return codes.replace_strict(distinct, pl.Series(known, dtype=pl.UInt32), return_dtype=pl.UInt32).to_numpy()


def is_sweep_word(conditions: pl.Expr) -> pl.Expr:
    """Tell whether any condition says SWEEP or ISO, ignoring case."""
    return conditions.list.eval(pl.element().str.to_uppercase().is_in(SWEEP_WORDS)).list.any().fill_null(False)


@lru_cache(maxsize=1024)
def _lists(keys: tuple[int, ...]) -> pl.Series:
    return pl.Series([_reasons(key) for key in keys], dtype=pl.List(pl.String))


@cache
def _reasons(key: int) -> list[str]:
    prefix = PARENT_PREFIX if key >> len(REASONS) else ""
    return [prefix + reason for reason, bit in BIT.items() if key & bit]


def _lit(reason: str) -> pl.Expr:
    return pl.lit(BIT[reason], dtype=pl.UInt32)


def _bit(condition: pl.Expr, reason: str) -> pl.Expr:
    return condition.cast(pl.UInt32) * BIT[reason]
