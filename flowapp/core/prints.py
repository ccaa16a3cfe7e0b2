"""Option prints per record: the edge's stamp, what is invalid, and the numbers the fold works on."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core import tail
from flowapp.core.fold import TICK
from flowapp.core.money import MAX_PRINT_CONTRACTS, MAX_PRINT_DOLLARS, STANDARD_MULTIPLIER, micro_dollars
from flowapp.core.numbering import CONTRACTS, RUNS, VENUES
from flowapp.core.placement import MISSING, OPTION_QUOTE, SIDE, STALE, is_crossed, is_quoted, is_stale, side_code, side_text
from flowapp.core.rules import MODE_ALL, OptionRules, option_rules
from flowapp.core.signal import BIT, CROSSED, SignalInput, is_sweep_word, masks_of, passes, reasons, verdict
from flowapp.core.tail import NO_INTEGER
from flowapp.records.identity import round_expr
from flowapp.settings import Settings

Integers = npt.NDArray[np.int64]

# A row's flags, one integer: what it may do and what it is, then the index of its side, then the mask of its reasons.
(
    ALERT,
    BASELINE,
    SIGNED,
    WEAK,
    LEG,
    SWEEP,
    PASS,
    ETF,
    ETF_KNOWN,
    PLACED,
    QUOTED,
    AGED,
    LATE,
    INPUT,
    CANCEL,
    EXCLUDED,
    LATE_CLUSTER,
    IS_TICK,
) = (1 << place for place in range(18))
SIDE_SHIFT, SIDE_MASK = 20, 7
REASON_SHIFT = 24
REASON_MASK = (1 << 16) - 1

PREFIX = "_n_"
PREPARED = tuple(name for name in (*tail.NUMBERS, "run") if name not in ("offset", "cluster"))
MAX_TIME_MS = 2**53
MAX_ID_BYTES = 256


def is_stamped(frame: pl.DataFrame, config: str) -> bool:
    """Tell whether every print carries the stamp of a configuration."""
    return bool(frame.select(((pl.col("config") == config).fill_null(False) | pl.col(TICK).is_not_null()).all()).item())


def stamp(frame: pl.DataFrame, rules: Settings | OptionRules) -> pl.DataFrame:
    """Add side, notional, ETF flag, verdict and configuration to option prints with their frozen context and condition flags."""
    context, verdicts, texts = _stamping(option_rules(rules))
    return frame.with_columns(context).with_columns(verdicts).with_columns(texts).drop("_side", "_mask")


@lru_cache(maxsize=16)
def _stamping(rules: OptionRules) -> tuple[list[pl.Expr], list[pl.Expr], list[pl.Expr]]:
    """Expressions of the stamp, each group over the columns of those before it."""
    context = [
        _side(rules).alias("_side"),
        round_expr(_dollars(rules), 2).alias("notional"),
        pl.when(pl.col("option_type").is_not_null()).then(pl.col("underlying_id").is_in(rules.etfs)).alias("is_etf"),
    ]
    texts = [
        side_text(pl.col("_side")).alias("nbbo_side"),
        passes(pl.col("_mask")).alias("signal_pass"),
        reasons(pl.col("_mask")).alias("signal_reasons"),
        pl.lit(rules.thresholds.mode).alias("signal_profile"),
        pl.lit(rules.config).alias("config"),
    ]
    return context, [_verdict(rules).alias("_mask")], texts


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
    """Return why a row is invalid, null where it is valid or a tick; `contracts` tells whether its contract id parses."""
    checked = frame.hstack([pl.Series("_parses", contracts)])
    if checked.select(_all_valid()).item():
        return pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
    text: pl.Expr = pl.lit(None, pl.String)
    for test, message in reversed(_checks()):
        text = pl.when(test.fill_null(False)).then(text).otherwise(message)
    return checked.select(pl.when(pl.col(TICK).is_null()).then(text)).to_series()


@cache
def _all_valid() -> pl.Expr:
    return (pl.all_horizontal(test.fill_null(False) for test, _ in _checks()) | pl.col(TICK).is_not_null()).all()


def _checks() -> list[tuple[pl.Expr, pl.Expr]]:
    """What a print must satisfy, and what is said when it does not."""
    price, size, ts, multiplier = pl.col("price"), pl.col("size"), pl.col("source_ts"), pl.col("multiplier")
    dollars = price * size * multiplier.fill_null(STANDARD_MULTIPLIER)
    shown = pl.col("option_contract_id").fill_null("null").str.head(MAX_ID_BYTES)
    ids = ("trace_id", "underlying_id", "exchange", "option_contract_id", "run")
    return [
        (pl.col("_parses"), pl.format("option_contract_id was {}; allowed: a contract", shown)),
        *(
            (pl.col(name).str.len_bytes().is_between(1, MAX_ID_BYTES), pl.lit(f"{name} was empty or longer than {MAX_ID_BYTES} bytes"))
            for name in ids
        ),
        (ts.is_between(0, MAX_TIME_MS), pl.format("source_ts was {}; allowed: 0 to {}", ts, pl.lit(MAX_TIME_MS))),
        (pl.col("ingest_ts").is_not_null() & pl.col("seq").is_not_null(), pl.lit("ingest_ts or seq was null")),
        (price.is_finite() & (price >= 0), pl.format("price was {}; allowed: a finite number >= 0", price)),
        (size.is_between(1, MAX_PRINT_CONTRACTS), pl.format("size was {}; allowed: 1 to {}", size, pl.lit(MAX_PRINT_CONTRACTS))),
        (multiplier.is_null() | (multiplier >= 1), pl.format("multiplier was {}; allowed: at least 1", multiplier)),
        (dollars <= MAX_PRINT_DOLLARS, pl.format("notional was {}; allowed: at most {} dollars", dollars, pl.lit(MAX_PRINT_DOLLARS))),
    ]


def prepare(frame: pl.DataFrame, rules: OptionRules) -> tuple[pl.DataFrame, npt.NDArray[np.bool_]]:
    """Return the numbers the fold works on, a row per record, and whether each row's contract id parses.

    The columns are those rows of the tail's matrix that a print brings along (PREPARED), with PREFIX before their names.
    """
    found = frame.select(_preparation(rules))
    contract = found["contract"].to_numpy()
    one_run = frame.height == 0 or found["one_run"].item(0)
    runs = RUNS.of(frame["run"][:1] if one_run else frame["run"])
    made = {
        "flags": _with_reasons(frame, found["flags"].to_numpy(), rules),
        "attributes": CONTRACTS.attributes(frame, contract, found["hash"].to_numpy()),
        "run": np.broadcast_to(runs, frame.height),
    }
    kept = [found[name].alias(PREFIX + name) for name in PREPARED if name not in made]
    return pl.DataFrame([*kept, *(pl.Series(PREFIX + name, values) for name, values in made.items())]), CONTRACTS.parses(contract)


@lru_cache(maxsize=16)
def _preparation(rules: OptionRules) -> list[pl.Expr]:
    ts = pl.coalesce(TICK, "source_ts")
    integers = [
        (ts if field == tail.SOURCE_TS else pl.col(tail.NUMBERS[field])).fill_null(NO_INTEGER).alias(tail.NUMBERS[field])
        for field in tail.INTEGERS
    ]
    return [
        micro_dollars(_premium(rules)).fill_null(0).alias("micro"),
        *integers,
        *(pl.col(tail.NUMBERS[field]).fill_null(float("nan")) for field in tail.REALS),
        CONTRACTS.ids.expression(pl.col("option_contract_id")).alias("contract"),
        CONTRACTS.hashes().alias("hash"),
        VENUES.expression(pl.col("exchange")).alias("venue"),
        (pl.col("run") == pl.col("run").first()).all().alias("one_run"),
        _word(rules).alias("flags"),
    ]


def _word(rules: OptionRules) -> pl.Expr:
    """Flags and side as one integer per row; a tick is nothing but a tick."""
    cancel, excluded = pl.col("is_cancel").fill_null(False), pl.col("is_excluded").fill_null(False)
    passed, signed, side = pl.col("signal_pass").fill_null(False), may_sign(rules), _packet_side(rules)
    eligible = ~cancel & ~excluded
    flags = [
        (pl.col("may_alert").fill_null(True), ALERT),
        (pl.col("may_baseline").fill_null(True), BASELINE),
        (signed, SIGNED),
        (pl.col("is_weak"), WEAK),
        (pl.col("is_multi_leg"), LEG),
        (pl.col("is_sweep"), SWEEP),
        (passed, PASS),
        (pl.col("is_etf"), ETF),
        (pl.col("is_etf").is_not_null(), ETF_KNOWN),
        (signed & (side != MISSING) & (side != STALE), PLACED),
        (is_quoted(rules.rules, OPTION_QUOTE, pl.col("source_ts")), QUOTED),
        (_packet_stale(rules), AGED),
        (pl.col("arrived_late").fill_null(False) | pl.col("time_suspect").fill_null(False), LATE),
        (eligible if rules.rules.cluster_every_print else eligible & passed, INPUT),
        (cancel, CANCEL),
        (excluded & ~cancel, EXCLUDED),
    ]
    none = pl.lit(0, pl.UInt32)
    bits = [pl.when(flag).then(pl.lit(bit, pl.UInt32)).otherwise(none) for flag, bit in flags]
    word = pl.sum_horizontal(*bits, side.cast(pl.UInt32) * (1 << SIDE_SHIFT))
    crossed = pl.when(is_crossed(rules.rules, OPTION_QUOTE)).then(pl.lit(CROSSED, pl.UInt32)).otherwise(none)
    own_reasons = (
        (crossed + BIT["mode:all"]).cast(pl.Int64) * (1 << REASON_SHIFT) if rules.thresholds.mode == MODE_ALL else pl.lit(0, pl.Int64)
    )
    return pl.when(pl.col(TICK).is_null()).then(word.cast(pl.Int64) + pl.when(passed).then(own_reasons).otherwise(0)).otherwise(IS_TICK)


def _with_reasons(frame: pl.DataFrame, flags: Integers, rules: OptionRules) -> Integers:
    """Add the reasons of passing prints; in the mode `all` they are known without looking."""
    passing = np.flatnonzero(flags & PASS) if rules.thresholds.mode != MODE_ALL else np.zeros(0, np.int64)
    if not passing.size:
        return flags
    words = flags.copy()
    words[passing] |= masks_of(frame["signal_reasons"].gather(passing)).astype(np.int64) << REASON_SHIFT
    return words
