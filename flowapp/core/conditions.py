"""Condition policy: what a sale condition's class permits (lessons G3, market facts 6.1).

The edge maps a vendor's code to a class by the vendor's dated table; the class decides here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

CONDITION_COLUMNS = pl.Schema(
    {
        "condition_tag": pl.String,
        "may_alert": pl.Boolean,
        "may_sign": pl.Boolean,
        "may_baseline": pl.Boolean,
        "is_weak": pl.Boolean,
        "is_cancel": pl.Boolean,
        "is_excluded": pl.Boolean,
        "is_sweep": pl.Boolean,
        "is_multi_leg": pl.Boolean,
        "conditions_unavailable": pl.Boolean,
        "conditions_unmapped": pl.Boolean,
    }
)
UNMAPPED = "unmapped"
REGULAR = "AUTO"
"""Class of a print of a feed that carries conditions but has none on this print."""

# The most restrictive first: the tag of a print with several conditions is the first of theirs.
TAGS = (
    "cancel", "compression", "proprietary", UNMAPPED, "extended", "multi_leg", "stock_option", "cross", "late", "reopening",
    "floor", "auction", "sweep", "electronic",
)  # fmt: skip
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Policy:
    """What prints of a condition class may do."""

    tag: str
    may_alert: bool
    may_sign: bool
    may_baseline: bool
    is_weak: bool = False
    is_cancel: bool = False
    is_excluded: bool = False
    is_sweep: bool = False
    is_multi_leg: bool = False


_LEG = Policy("multi_leg", False, False, False, is_multi_leg=True)
_HEDGED = Policy("stock_option", False, False, False, is_multi_leg=True)
_CANCEL = Policy("cancel", False, False, False, is_cancel=True)
_LATE = Policy("late", False, False, True)

POLICIES: Mapping[str, Policy] = {
    "AUTO": Policy("electronic", True, True, True),
    "ISOI": Policy("sweep", True, True, True, is_sweep=True),
    "REOP": Policy("reopening", False, False, True),
    "SLAN": Policy("auction", True, True, True, is_weak=True),
    "SLAI": Policy("auction", True, True, True, is_weak=True, is_sweep=True),
    "SLCN": Policy("cross", False, False, True),
    "SCLI": Policy("cross", False, False, True, is_sweep=True),
    "SLCI": Policy("cross", False, False, True, is_sweep=True),
    "SLFT": Policy("floor", True, True, True, is_weak=True),
    "MLET": _LEG, "MLAT": _LEG, "MLCT": _LEG, "MLFT": _LEG, "MESL": _LEG, "MASL": _LEG, "MFSL": _LEG,
    "TLAT": _HEDGED, "TLET": _HEDGED, "TLCT": _HEDGED, "TLFT": _HEDGED, "TESL": _HEDGED, "TASL": _HEDGED, "TFSL": _HEDGED,
    "CBMO": Policy("proprietary", False, False, False, is_excluded=True, is_multi_leg=True),
    "MCTP": Policy("compression", False, False, False, is_excluded=True),
    "EXHT": Policy("extended", False, False, False),
    "CANC": _CANCEL, "CNCL": _CANCEL, "CNCO": _CANCEL, "CNOL": _CANCEL,
    "OSEQ": _LATE, "OPEN": _LATE, "LATE": _LATE, "OPNL": _LATE,
}  # fmt: skip
_UNKNOWN = Policy(UNMAPPED, False, False, False)

# Words of the synthetic market and of the reference, whose case does not matter.
WORDS: Mapping[str, str] = {
    "": REGULAR, "FILL": REGULAR, "TEST": REGULAR, "AUTO": REGULAR, "SWEEP": "ISOI", "ISO": "ISOI", **{name: name for name in POLICIES},
}  # fmt: skip


def policy_of(codes: Iterable[str], mapping: Mapping[str, str], available: bool = True) -> dict[str, bool | str | None]:
    """Return the condition columns of one print.

    Several conditions combine to the most restrictive; a sweep among them stays a sweep. What a condition would
    have to tell is null where there is none to tell it.
    """
    if not available:
        return dict.fromkeys(CONDITION_COLUMNS.names(), None) | {
            "may_alert": True, "may_sign": True, "may_baseline": True, "conditions_unavailable": True, "conditions_unmapped": False,
        }  # fmt: skip
    found = [POLICIES.get(mapping.get(code, ""), _UNKNOWN) for code in codes] or [POLICIES[REGULAR]]
    unknown = _UNKNOWN in found

    def any_of(flags: list[bool]) -> bool | None:
        return True if any(flags) else None if unknown else False

    return {
        "condition_tag": min((policy.tag for policy in found), key=TAGS.index),
        "may_alert": all(policy.may_alert for policy in found),
        "may_sign": all(policy.may_sign for policy in found),
        "may_baseline": all(policy.may_baseline for policy in found),
        "is_weak": any_of([policy.is_weak for policy in found]),
        "is_cancel": any_of([policy.is_cancel for policy in found]),
        "is_excluded": any_of([policy.is_excluded for policy in found]),
        "is_sweep": any_of([policy.is_sweep for policy in found]),
        "is_multi_leg": any_of([policy.is_multi_leg for policy in found]),
        "conditions_unavailable": False,
        "conditions_unmapped": unknown,
    }


def condition_columns(frame: pl.DataFrame, mapping: Mapping[str, str], available: bool) -> pl.DataFrame:
    """Return the condition columns of a frame's rows, in their order.

    Args:
        frame: has `conditions` (List(String)), codes as the vendor delivers them.
        mapping: vendor code -> class, a key of POLICIES; other codes are unmapped.
        available: whether the feed carries conditions at all.
    """
    if not available:
        row = policy_of((), mapping, available=False)
        return pl.DataFrame({name: pl.repeat(row[name], frame.height, dtype=kind, eager=True) for name, kind in CONDITION_COLUMNS.items()})
    keys = frame.select(key=pl.col("conditions").list.join(_SEPARATOR).fill_null(""))
    distinct = keys["key"].unique()
    rows = [policy_of(key.split(_SEPARATOR) if key else (), mapping) for key in distinct]
    table = pl.DataFrame(rows, schema=CONDITION_COLUMNS).with_columns(distinct.alias("key"))
    return keys.join(table, on="key", how="left", maintain_order="left").select(CONDITION_COLUMNS.names())
