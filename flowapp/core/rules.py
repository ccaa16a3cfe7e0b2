"""Rule sets: the reference's behaviour and its corrections, one switch per correction; and the numbers rules compare with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Any

from flowapp.settings import Settings

MODE_ALL = "all"
BALANCED = "balanced"
REFERENCE_PACKET_AGE_MS = 1000
MISSING_NBBO_MIN_NOTIONAL = 50_000.0
LARGE_PRINT_MIN_CONTRACTS = 500
AUTO_KEEP_MIN_NOTIONAL = 100_000.0
# Caps of the balanced mode, dollars.
BALANCED_CAPS: Mapping[str, float] = {
    "min_notional": 5_000, "etf_min_notional": 25_000, "bid_side_min_notional": 15_000, "mid_min_notional": 12_500,
    "missing_nbbo_min_notional": 25_000, "sweep_min_notional": 15_000, "auto_keep_min_notional": 75_000,
}  # fmt: skip


@dataclass(frozen=True)
class RuleSet:
    """Corrections of the reference; a switch that is False behaves as the reference does."""

    name: str
    version: int
    premium_in_dollars: bool = True
    """Premium is price x size x multiplier, not price x size."""
    tolerance_within_spread: bool = True
    """Placement tolerance stays below half the spread; a locked market has a midpoint, a crossed one no side."""
    quote_age_by_source: bool = True
    """A quote is stale by how it was observed (with the trade, event-driven, sampled), not by its age alone; one limit for all."""
    cluster_every_print: bool = True
    """Every eligible print joins its cluster and the verdict is asked of the parent too, not of passing prints only."""
    direction_gate: bool = True
    """Directional rules need the matching aggressor."""
    structures_confirmed: bool = True
    """Structures state their evidence and hide no leg by coincidence."""
    rights_as_words: bool = True
    """A structure packet's rights match the filter's call and put."""
    alert_cooldown: bool = True
    """One alert per underlying, primary rule and direction within the cooldown."""
    baselines_logarithmic: bool = True
    """Baselines of log premium with life in sessions."""
    candles_eligible_only: bool = True
    """Price-ineligible prints count in a candle's volume only."""
    dark_policy: bool = True
    """Off-exchange evidence obeys the sale-condition policy."""
    trade_date_expiry: bool = True
    """Days to expiry count from the trade date, the underlying is the frozen one."""
    alert_direction_by_weight: bool = True
    """An alert's direction is weighed over its hits."""
    condition_policy: bool = True
    """The condition policy table decides sweeps and who may be signed, not words in the vendor's codes."""

    @property
    def switches(self) -> tuple[str, ...]:
        """Names of the switches, in order of declaration."""
        return tuple(item.name for item in fields(self) if item.name not in ("name", "version"))


STANDARD = RuleSet("standard", 1)
REFERENCE = RuleSet("reference", 1, *[False] * len(STANDARD.switches))
RULE_SETS: Mapping[str, RuleSet] = {rules.name: rules for rules in (REFERENCE, STANDARD)}


@dataclass(frozen=True)
class SignalThresholds:
    """Numbers of the signal decision (reference 4.5), dollars, contracts."""

    mode: str
    min_notional: float
    etf_min_notional: float
    bid_side_min_notional: float
    mid_min_notional: float
    missing_nbbo_min_notional: float
    large_print_min_contracts: int
    large_print_min_notional: float
    sweep_min_notional: float
    auto_keep_min_notional: float

    @classmethod
    def of(cls, settings: Settings, mode: str | None = None) -> SignalThresholds:
        """Return the effective numbers of a mode, by default the configured one."""
        mode = mode or settings.options_signal_mode
        floor, bid_floor = settings.options_signal_min_notional, settings.options_signal_bid_side_min_notional
        values = {
            "min_notional": floor,
            "etf_min_notional": settings.options_signal_etf_min_notional,
            "bid_side_min_notional": bid_floor,
            "mid_min_notional": settings.options_signal_mid_min_notional,
            "missing_nbbo_min_notional": MISSING_NBBO_MIN_NOTIONAL,
            "sweep_min_notional": bid_floor,
            "auto_keep_min_notional": AUTO_KEEP_MIN_NOTIONAL,
        }
        if mode == BALANCED:
            values = {name: min(value, BALANCED_CAPS[name]) for name, value in values.items()}
        return cls(mode=mode, large_print_min_contracts=LARGE_PRINT_MIN_CONTRACTS, large_print_min_notional=floor, **values)


@dataclass(frozen=True)
class OptionRules:
    """Everything that decides an output of the options agent and the edge's stamp."""

    rules: RuleSet
    config: str
    """Hash of the settings and rule set, stamped into records."""
    thresholds: SignalThresholds
    etfs: tuple[str, ...]
    max_age_ms: int
    """Age limit of the print's own side."""
    packet_max_age_ms: int
    """Age limit of a packet's counters and quote fields; the same one under `quote_age_by_source`."""
    equity_max_age_ms: int
    window_ms: int
    cancel_window_ms: int

    @classmethod
    def of(cls, settings: Settings, rules: RuleSet | None = None) -> OptionRules:
        """Return the rules that the settings name, or the same numbers under another rule set."""
        named = RULE_SETS[settings.rules]
        rules = rules or named
        own_age = settings.nbbo_max_age_ms if settings.nbbo_max_age_ms is not None else REFERENCE_PACKET_AGE_MS
        max_age = settings.options_signal_nbbo_max_age_ms
        if rules.quote_age_by_source and settings.nbbo_max_age_ms is not None:
            max_age = settings.nbbo_max_age_ms
        return cls(
            rules=rules,
            config=settings.config_hash if rules == named else _other_config(settings, rules),
            thresholds=SignalThresholds.of(settings),
            etfs=settings.options_signal_etf_underlyings,
            max_age_ms=max_age,
            packet_max_age_ms=max_age if rules.quote_age_by_source else own_age,
            equity_max_age_ms=settings.equity_quote_max_age_ms,
            window_ms=settings.cluster_window_ms,
            cancel_window_ms=settings.cancel_window_ms,
        )


def option_rules(rules: Settings | OptionRules) -> OptionRules:
    """Accept settings where rules are meant."""
    return rules if isinstance(rules, OptionRules) else OptionRules.of(rules)


def _other_config(settings: Settings, rules: RuleSet) -> str:
    values: tuple[Any, ...] = (settings.config_hash, *astuple(rules))
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
