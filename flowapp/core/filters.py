"""Filters that readers apply to prints and packets (reference 4.6)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from flowapp.core.placement import SIDES
from flowapp.core.rules import RuleSet
from flowapp.errors import SettingError

SIGNAL_VIEW, RAW_VIEW = "signal", "raw"
STOCK, ETF = "stock", "etf"
RIGHTS = ("call", "put")
_KEY_ORDER = ("view", "securityTypes", "nbboSides", "optionTypes", "minNotional")
_ALLOWED: Mapping[str, tuple[str, ...]] = {
    "view": (SIGNAL_VIEW, RAW_VIEW),
    "securityTypes": (STOCK, ETF),
    "nbboSides": SIDES,
    "optionTypes": RIGHTS,
}


@dataclass(frozen=True)
class FlowFilter:
    """A reader's filter; an empty tuple or None restricts nothing."""

    view: str | None = None
    security_types: tuple[str, ...] = ()
    nbbo_sides: tuple[str, ...] = ()
    option_types: tuple[str, ...] = ()
    min_notional: float | None = None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> FlowFilter:
        """Read a filter object.

        Raises:
            SettingError: names the entry, its value and what is allowed.
        """
        for name, allowed in _ALLOWED.items():
            value = document.get(name)
            words = [value] if name == "view" else value
            if value is not None and (not isinstance(words, list) or any(word not in allowed for word in words)):
                raise SettingError(f"filter entry {name} was {value!r}; allowed: {', '.join(allowed)}")
        floor = document.get("minNotional")
        if floor is not None and (isinstance(floor, bool) or not isinstance(floor, int | float) or not math.isfinite(floor)):
            raise SettingError(f"filter entry minNotional was {floor!r}; allowed: a number")
        return cls(
            document.get("view"),
            tuple(document.get("securityTypes") or ()),
            tuple(document.get("nbboSides") or ()),
            tuple(document.get("optionTypes") or ()),
            floor,
        )


def filter_key(wanted: FlowFilter | None) -> str:
    """Return the text by which readers with the same filter share a subscription."""
    if wanted is None:
        return "{}"
    values = (wanted.view, wanted.security_types, wanted.nbbo_sides, wanted.option_types, wanted.min_notional)
    entries: dict[str, Any] = {}
    for name, value in zip(_KEY_ORDER, values, strict=True):
        if isinstance(value, tuple):
            if value:
                entries[name] = sorted(set(value))
        elif value is not None:
            entries[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=False)


def print_matches(wanted: FlowFilter | None) -> pl.Expr:
    """Return whether an option print matches."""
    if wanted is None:
        return pl.lit(True)
    match = pl.lit(True)
    if (wanted.view or SIGNAL_VIEW) == SIGNAL_VIEW:
        match &= pl.col("signal_pass").fill_null(True)
    if wanted.security_types:
        match &= _security_type().is_in(wanted.security_types)
    if wanted.nbbo_sides:
        match &= pl.col("nbbo_side").fill_null("MISSING").is_in(wanted.nbbo_sides)
    if wanted.option_types:
        match &= pl.col("option_type").is_in(wanted.option_types).fill_null(False)
    if wanted.min_notional is not None:
        match &= pl.col("notional").fill_null(0.0) >= wanted.min_notional
    return match


def packet_matches(wanted: FlowFilter | None, rules: RuleSet) -> pl.Expr:
    """Return whether a flow packet matches."""
    if wanted is None:
        return pl.lit(True)
    match = pl.lit(True)
    if wanted.min_notional is not None:
        match &= (pl.col("total_notional") >= wanted.min_notional).fill_null(False)
    if wanted.security_types:
        match &= _security_type().is_in(wanted.security_types)
    if wanted.option_types:
        rights = pl.coalesce(pl.col("option_type"), _structure_rights(rules))
        match &= pl.any_horizontal(rights.str.contains(word, literal=True) for word in wanted.option_types).fill_null(False)
    if wanted.nbbo_sides:
        match &= pl.any_horizontal((pl.col(f"nbbo_{side.lower()}_count") > 0).fill_null(False) for side in wanted.nbbo_sides)
    return match


def _security_type() -> pl.Expr:
    return pl.when(pl.col("is_etf").fill_null(False)).then(pl.lit(ETF)).otherwise(pl.lit(STOCK))


def _structure_rights(rules: RuleSet) -> pl.Expr:
    text = pl.col("structure_rights").str.to_lowercase()
    if not rules.rights_as_words:
        return text
    return text.str.replace("c", "call", literal=True).str.replace("p", "put", literal=True)
