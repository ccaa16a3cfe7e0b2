"""Option prints per record: the edge's stamp, what is invalid, and the numbers the fold works on."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core.fold import TICK
from flowapp.core.money import MAX_PRINT_CONTRACTS, MAX_PRINT_DOLLARS, STANDARD_MULTIPLIER, micro_dollars
from flowapp.core.placement import MISSING, OPTION_QUOTE, SIDE, STALE, is_crossed, is_quoted, is_stale, side_code, side_text
from flowapp.core.rules import MODE_ALL, OptionRules, option_rules
from flowapp.core.signal import BIT, CROSSED, SignalInput, is_sweep_word, masks_of, passes, reasons, verdict
from flowapp.records.identity import parse_contract, round_expr
from flowapp.settings import Settings

# Flags of a print, one integer: what it may do and what it is, then the index of its side, then the mask of its reasons.
ALERT, BASELINE, SIGNED, WEAK, LEG, SWEEP, PASS, ETF, ETF_KNOWN, PLACED, LATE_CLUSTER, QUOTED, AGED, LATE, INPUT, CANCEL, EXCLUDED = (
    1 << place for place in range(17)
)
SIDE_SHIFT, SIDE_MASK = 20, 7
REASON_SHIFT = 24
REASON_MASK = (1 << 16) - 1

CONTRACT, FLAGS, MICRO = "_contract", "_flags", "_micro"
MAX_TIME_MS = 2**53
MAX_ID_BYTES = 256
_NUMBERS = pl.Categories("contracts", "flowapp")


class Contracts:
    """Process-local numbers of contract ids, and whether each parses. A number never leaves the process."""

    def __init__(self) -> None:
        # Holding a column keeps the numbering alive.
        self._anchor = pl.Series([""], dtype=pl.String).cast(pl.Categorical(_NUMBERS))
        self._parses = np.zeros(1, np.bool_)
        self._seen = np.ones(1, np.bool_)
        self._lock = threading.Lock()

    def numbers(self, ids: pl.Series) -> npt.NDArray[np.int64]:
        """Return a number per id; the empty id and null share one."""
        return ids.cast(pl.Categorical(_NUMBERS)).to_physical().fill_null(0).cast(pl.Int64).to_numpy()

    def parse(self, ids: pl.Series, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell for every row whether its id is a contract."""
        with self._lock:
            self._grow(int(numbers.max(initial=0)) + 1)
            unseen = np.flatnonzero(~self._seen[numbers])
            for number, place in zip(*np.unique(numbers[unseen], return_index=True), strict=True):
                self._parses[number] = parse_contract(ids[int(unseen[place])]) is not None
                self._seen[number] = True
            return self._parses[numbers]

    def _grow(self, size: int) -> None:
        missing = size - self._seen.size
        if missing > 0:
            room = np.zeros(max(missing, self._seen.size), np.bool_)
            self._seen, self._parses = np.append(self._seen, room), np.append(self._parses, room)


CONTRACTS = Contracts()


def stamp(frame: pl.DataFrame, rules: Settings | OptionRules) -> pl.DataFrame:
    """Add side, notional, ETF flag, verdict and configuration to option prints with their frozen context and condition flags."""
    wanted = option_rules(rules)
    stamped = frame.with_columns(
        _side(wanted).alias("_side"),
        round_expr(_dollars(wanted), 2).alias("notional"),
        pl.when(pl.col("option_type").is_not_null()).then(pl.col("underlying_id").is_in(wanted.etfs)).alias("is_etf"),
    )
    stamped = stamped.with_columns(_verdict(wanted).alias("_mask"))
    return stamped.with_columns(
        side_text(pl.col("_side")).alias("nbbo_side"),
        passes(pl.col("_mask")).alias("signal_pass"),
        reasons(pl.col("_mask")).alias("signal_reasons"),
        pl.lit(wanted.thresholds.mode).alias("signal_profile"),
        pl.lit(wanted.config).alias("config"),
    ).drop("_side", "_mask")


def may_sign(rules: OptionRules) -> pl.Expr:
    """Tell whether a print may be signed; a policy that says nothing forbids nothing."""
    return pl.col("may_sign").fill_null(True) if rules.rules.condition_policy else pl.lit(True)


def _side(rules: OptionRules) -> pl.Expr:
    trade_ts = pl.col("source_ts")
    quoted, stale = is_quoted(rules.rules, OPTION_QUOTE, trade_ts), is_stale(rules.rules, OPTION_QUOTE, trade_ts, rules.max_age_ms)
    return side_code(rules.rules, pl.col("price"), OPTION_QUOTE, quoted, stale)


def _packet_side(rules: OptionRules) -> pl.Expr:
    """The side a packet counts: the print's own, or under reference rules with the packet's age limit."""
    if rules.rules.quote_age_by_source:
        return pl.col("nbbo_side").cast(SIDE).to_physical().fill_null(MISSING)
    trade_ts = pl.col("source_ts")
    quoted, stale = is_quoted(rules.rules, OPTION_QUOTE, trade_ts), _packet_stale(rules)
    return side_code(rules.rules, pl.col("price"), OPTION_QUOTE, quoted, stale, stale_first=True)


def _packet_stale(rules: OptionRules) -> pl.Expr:
    return is_stale(rules.rules, OPTION_QUOTE, pl.col("source_ts"), rules.packet_max_age_ms)


def _dollars(rules: OptionRules) -> pl.Expr:
    """Notional, dollars: the reference takes 100 shares for any contract."""
    multiplier = pl.col("multiplier").fill_null(STANDARD_MULTIPLIER) if rules.rules.premium_in_dollars else pl.lit(STANDARD_MULTIPLIER)
    return pl.col("price") * pl.col("size") * multiplier


def _premium(rules: OptionRules) -> pl.Expr:
    """What is summed up to a packet's premium: dollars, or price x size."""
    return _dollars(rules) if rules.rules.premium_in_dollars else pl.col("price") * pl.col("size")


def _verdict(rules: OptionRules) -> pl.Expr:
    signed_side = pl.when(may_sign(rules)).then(pl.col("_side")).otherwise(MISSING)
    sweep = pl.col("is_sweep") if rules.rules.condition_policy else is_sweep_word(pl.col("conditions"))
    of = SignalInput(pl.col("notional"), signed_side, pl.col("size"), pl.col("is_etf"), sweep)
    crossed = is_crossed(rules.rules, OPTION_QUOTE).cast(pl.UInt32) * CROSSED
    return (
        pl.when(pl.col("is_cancel").fill_null(False))
        .then(pl.lit(BIT["reject:cancel"], dtype=pl.UInt32))
        .when(pl.col("is_excluded").fill_null(False))
        .then(pl.lit(BIT["reject:excluded"], dtype=pl.UInt32))
        .otherwise(verdict(rules.thresholds, of) | crossed)
    )


def errors(frame: pl.DataFrame, contracts: npt.NDArray[np.bool_]) -> pl.Series:
    """Return why a row is invalid, null where it is valid or a tick."""
    price, size, ts = pl.col("price"), pl.col("size"), pl.col("source_ts")
    dollars = price * size * pl.col("multiplier").fill_null(STANDARD_MULTIPLIER)
    missing = pl.any_horizontal(pl.col(name).is_null() for name in ("source_ts", "ingest_ts", "seq", "price", "size", "exchange", "run"))
    checks = [
        (missing, pl.lit("a required field was null")),
        (~_has_text("trace_id"), pl.lit(f"trace_id was empty or longer than {MAX_ID_BYTES} bytes")),
        (~_has_text("underlying_id"), pl.lit(f"underlying_id was empty or longer than {MAX_ID_BYTES} bytes")),
        (~_has_text("exchange"), pl.lit(f"exchange was empty or longer than {MAX_ID_BYTES} bytes")),
        (
            ~(pl.col("_parses") & _has_text("option_contract_id")),
            pl.format(
                "option_contract_id was {}; allowed: a contract", pl.col("option_contract_id").fill_null("null").str.head(MAX_ID_BYTES)
            ),
        ),
        (~((ts >= 0) & (ts <= MAX_TIME_MS)), pl.format("source_ts was {}; allowed: 0 to {}", ts, pl.lit(MAX_TIME_MS))),
        (~(price.is_finite() & (price >= 0)), pl.format("price was {}; allowed: a finite number >= 0", price)),
        (~((size >= 1) & (size <= MAX_PRINT_CONTRACTS)), pl.format("size was {}; allowed: 1 to {}", size, pl.lit(MAX_PRINT_CONTRACTS))),
        (~(dollars <= MAX_PRINT_DOLLARS), pl.format("notional was {}; allowed: at most {} dollars", dollars, pl.lit(MAX_PRINT_DOLLARS))),
        (pl.col("multiplier") < 1, pl.format("multiplier was {}; allowed: at least 1", pl.col("multiplier"))),
    ]
    is_print = pl.col(TICK).is_null()
    named = frame.with_columns(pl.Series("_parses", contracts))
    bad = named.select((is_print & pl.any_horizontal(check.fill_null(False) for check, _ in checks)).alias("bad")).to_series()
    if not bad.any():
        return pl.repeat(None, frame.height, dtype=pl.String, eager=True)
    text: pl.Expr = pl.lit(None, pl.String)
    for check, message in reversed(checks):
        text = pl.when(check.fill_null(False)).then(message).otherwise(text)
    return named.select(pl.when(is_print).then(text)).to_series()


def _has_text(name: str) -> pl.Expr:
    return pl.col(name).str.len_bytes().is_between(1, MAX_ID_BYTES).fill_null(False)


def prepare(frame: pl.DataFrame, rules: OptionRules) -> pl.DataFrame:
    """Add the numbers that the fold works on to stamped prints; zero for ticks."""
    passed = pl.col("signal_pass").fill_null(False)
    cancel, excluded = pl.col("is_cancel").fill_null(False), pl.col("is_excluded").fill_null(False)
    eligible = pl.col(TICK).is_null() & ~cancel & ~excluded
    signed = may_sign(rules)
    side = pl.col("_code")
    trade_ts = pl.col("source_ts")
    flags: list[tuple[pl.Expr, int]] = [
        (pl.col("may_alert").fill_null(True), ALERT),
        (pl.col("may_baseline").fill_null(True), BASELINE),
        (signed, SIGNED),
        (pl.col("is_weak").fill_null(False), WEAK),
        (pl.col("is_multi_leg").fill_null(False), LEG),
        (pl.col("is_sweep").fill_null(False), SWEEP),
        (passed, PASS),
        (pl.col("is_etf").fill_null(False), ETF),
        (pl.col("is_etf").is_not_null(), ETF_KNOWN),
        (signed & (side != MISSING) & (side != STALE), PLACED),
        (is_quoted(rules.rules, OPTION_QUOTE, trade_ts), QUOTED),
        (_packet_stale(rules), AGED),
        (pl.col("arrived_late").fill_null(False) | pl.col("time_suspect").fill_null(False), LATE),
        (eligible if rules.rules.cluster_every_print else eligible & passed, INPUT),
        (cancel, CANCEL),
        (excluded & ~cancel, EXCLUDED),
    ]
    bits = pl.sum_horizontal(flag.cast(pl.Int64) * bit for flag, bit in flags)
    masks = pl.Series("_reasons", _passing_reasons(frame, rules).astype(np.int64) << REASON_SHIFT)
    prepared = frame.with_columns(_packet_side(rules).alias("_code"), masks, micro_dollars(_premium(rules)).fill_null(0).alias(MICRO))
    is_print = pl.col(TICK).is_null()
    word = bits + side.cast(pl.Int64) * (1 << SIDE_SHIFT) + pl.col("_reasons")
    return prepared.with_columns(pl.when(is_print).then(word).otherwise(0).alias(FLAGS)).drop("_code", "_reasons")


def _passing_reasons(frame: pl.DataFrame, rules: OptionRules) -> npt.NDArray[np.uint32]:
    """Masks of the reasons of passing prints, 0 for others."""
    masks = np.zeros(frame.height, np.uint32)
    passing = frame.select(pl.col("signal_pass").fill_null(False) & pl.col(TICK).is_null()).to_series()
    places = np.flatnonzero(passing.to_numpy())
    if places.size and rules.thresholds.mode == MODE_ALL and not rules.rules.tolerance_within_spread:
        masks[places] = BIT["mode:all"]
    elif places.size:
        masks[places] = masks_of(frame["signal_reasons"].filter(passing))
    return masks
