"""Compare the rules with the reference's outputs under the rule set `reference`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from flowapp.core.filters import FlowFilter, filter_key, packet_matches, print_matches
from flowapp.core.placement import OPTION_QUOTE, SIDE, SIDES, is_quoted, is_stale, side_code, side_text
from flowapp.core.rules import REFERENCE, OptionRules, SignalThresholds
from flowapp.core.signal import SignalInput, is_sweep_word, passes, reasons, verdict
from flowapp.settings import Settings

DIRECTORY = Path(__file__).parent
SUFFIX = ".jsonl.gz"
SETTINGS = Settings(rules="reference")
LATER = ("structure_plan", "classifier_hits", "dark_inference_sequence", "candle_operations")
OK, FAILED, NOT_YET = 0, 1, 2


class Score(NamedTuple):
    """Cases of a file, and the places (from 0) of those that differ."""

    cases: int
    failing: list[int]


def nbbo_side(lines: Sequence[Any]) -> list[bool]:
    """Compare placements (4.4)."""
    rows = [
        {"price": price, "source_ts": ts, "max_age_ms": age, "expected": side}
        | {"nbbo_bid": None, "nbbo_ask": None, "nbbo_ts": None}
        | ({f"nbbo_{name}": value for name, value in quote.items()} if quote else {})
        for price, quote, ts, age, side in lines
    ]
    reals, times = dict.fromkeys(("price", "nbbo_bid", "nbbo_ask"), pl.Float64), dict.fromkeys(("source_ts", "nbbo_ts"), pl.Int64)
    frame = pl.DataFrame(rows, schema={**reals, **times, "max_age_ms": pl.Int64, "expected": pl.String}, strict=False)
    frame = frame.with_columns(pl.lit(None, pl.String).alias("quote_source"), pl.lit(None, pl.Int64).alias("quote_feed_ts"))
    if frame["max_age_ms"].n_unique() != 1:
        raise ValueError("nbbo_side lines were of several age limits; allowed: one")
    rules = OptionRules.of(SETTINGS).rules
    ts, max_age_ms = pl.col("source_ts"), frame["max_age_ms"].item(0)
    quoted, stale = is_quoted(rules, OPTION_QUOTE, ts), is_stale(rules, OPTION_QUOTE, ts, max_age_ms)
    side = side_text(side_code(rules, pl.col("price"), OPTION_QUOTE, quoted, stale))
    return frame.select(side.eq_missing(pl.col("expected"))).to_series().to_list()


def signal_decision(lines: Sequence[Any]) -> list[bool]:
    """Compare verdicts (4.5), the ETF set being {SPY}."""
    names = pl.Schema(
        {"notional": pl.Float64(), "size": pl.Int64(), "nbbo_side": pl.String(), "is_etf": pl.Boolean(), "conditions": pl.List(pl.String())}
    )
    frame = pl.DataFrame([{name: case[0].get(name) for name in names} for case in lines], schema=names, strict=False).with_row_index()
    equal = [False] * len(lines)
    for mode in sorted({case[1] for case in lines}):
        limits = SignalThresholds.of(SETTINGS, mode)
        places = [place for place, case in enumerate(lines) if case[1] == mode]
        side = pl.col("nbbo_side").cast(SIDE).to_physical()
        of = SignalInput(pl.col("notional"), side, pl.col("size"), pl.col("is_etf"), is_sweep_word(pl.col("conditions")))
        found = frame[places].with_columns(verdict(limits, of).alias("mask"))
        found = found.select(passes(pl.col("mask")).alias("pass"), reasons(pl.col("mask")).alias("reasons"))
        for place, (passed, why) in zip(places, found.iter_rows(), strict=True):
            equal[place] = lines[place][2] == {"signalPass": passed, "signalReasons": why, "signalProfile": mode}
    return equal


def packet_and_print_filters(lines: Sequence[Any]) -> list[bool]:
    """Compare filters and their keys (4.6)."""
    print_schema = {
        "signal_pass": pl.Boolean, "is_etf": pl.Boolean, "nbbo_side": pl.String, "option_type": pl.String, "notional": pl.Float64,
    }  # fmt: skip
    counts = {f"nbbo_{side.lower()}_count": pl.Int64 for side in SIDES}
    packet_schema = {
        "is_etf": pl.Boolean, "option_type": pl.String, "structure_rights": pl.String, "total_notional": pl.Float64, **counts,
    }  # fmt: skip
    prints = pl.DataFrame([{name: case[1].get(name) for name in print_schema} for case in lines], schema=print_schema, strict=False)
    packets = pl.DataFrame([{name: case[2].get(name) for name in packet_schema} for case in lines], schema=packet_schema, strict=False)
    wanted = [None if case[0] is None else FlowFilter.parse(case[0]) for case in lines]
    by_filter: dict[FlowFilter | None, list[int]] = {}
    for place, one in enumerate(wanted):
        by_filter.setdefault(one, []).append(place)
    equal = [False] * len(lines)
    for one, places in by_filter.items():
        found_prints = prints[places].select(pl.lit(True) & print_matches(one) & pl.repeat(True, pl.len())).to_series()
        found_packets = packets[places].select(packet_matches(one, REFERENCE) & pl.repeat(True, pl.len())).to_series()
        for place, print_match, packet_match in zip(places, found_prints, found_packets, strict=True):
            equal[place] = lines[place][3:] == [print_match, packet_match, filter_key(one)]
    return equal


KINDS: Mapping[str, Callable[[Sequence[Any]], list[bool]]] = {
    "nbbo_side": nbbo_side,
    "signal_decision": signal_decision,
    "packet_and_print_filters": packet_and_print_filters,
}


def kind_of(path: Path) -> str:
    """Return the kind that a file's name tells."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def score(path: Path) -> Score:
    """Compare every line of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    equal = KINDS[kind_of(path)](lines)
    return Score(len(equal), [place for place, same in enumerate(equal) if not same])


def main(arguments: Sequence[str]) -> int:
    """Print cases, equal and failing per file; 1 when any case fails, 2 when a file's kind is not built yet."""
    paths = [Path(argument) for argument in arguments] or [DIRECTORY / f"{kind}{SUFFIX}" for kind in KINDS]
    outcome = OK
    for path in paths:
        kind = kind_of(path)
        if kind in LATER:
            print(f"{kind}: not yet")
            outcome = max(outcome, NOT_YET) if outcome != FAILED else outcome
            continue
        if kind not in KINDS:
            print(f"{path}: no such kind; allowed: {', '.join((*KINDS, *LATER))}")
            outcome = FAILED
            continue
        cases, failing = score(path)
        shown = f" (lines {', '.join(str(place + 1) for place in failing[:10])})" if failing else ""
        print(f"{kind}: {cases} cases, {cases - len(failing)} equal, {len(failing)} failing{shown}")
        outcome = FAILED if failing else outcome
    return outcome
