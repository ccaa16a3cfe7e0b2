"""Where a print stands in its quote (reference 4.4), and when a quote is too old to say so (architecture section 5)."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from flowapp.core.rules import RuleSet

SIDES = ("AA", "A", "MID", "B", "BB", "MISSING", "STALE")
AA, A, MID, B, BB, MISSING, STALE = range(len(SIDES))
SIDE = pl.Enum(SIDES)
WITH_TRADE, EVENT, SAMPLED = "with_trade", "event", "sampled"

MIN_TOLERANCE_DOLLARS = 0.01
TOLERANCE_OF_SPREAD = 0.05
MAX_TOLERANCE_OF_SPREAD = 0.49


@dataclass(frozen=True)
class Quote:
    """Columns of a frozen quote."""

    bid: pl.Expr
    ask: pl.Expr
    ts: pl.Expr
    source: pl.Expr
    feed_ts: pl.Expr


OPTION_QUOTE = Quote(pl.col("nbbo_bid"), pl.col("nbbo_ask"), pl.col("nbbo_ts"), pl.col("quote_source"), pl.col("quote_feed_ts"))
EQUITY_QUOTE = Quote(pl.col("quote_bid"), pl.col("quote_ask"), pl.col("quote_ts"), pl.col("quote_source"), pl.col("quote_feed_ts"))


def is_quoted(rules: RuleSet, quote: Quote, trade_ts: pl.Expr) -> pl.Expr:
    """Tell whether there is a quote to compare with; under standard rules one from after the trade is none."""
    present = quote.bid.is_not_null() & quote.ask.is_not_null()
    if not rules.quote_age_by_source:
        return present & quote.ts.is_not_null()
    return present & ((quote.source == WITH_TRADE).fill_null(False) | (quote.ts <= trade_ts).fill_null(False))


def is_stale(rules: RuleSet, quote: Quote, trade_ts: pl.Expr, max_age_ms: int) -> pl.Expr:
    """Tell whether the quote is too old; exactly the limit is fresh."""
    if not rules.quote_age_by_source:
        return ((trade_ts - quote.ts).abs() > max_age_ms).fill_null(False)
    seen_ts = pl.when(quote.source == EVENT).then(pl.coalesce(quote.feed_ts, quote.ts)).otherwise(quote.ts)
    return (quote.source.ne_missing(pl.lit(WITH_TRADE)) & (trade_ts - seen_ts > max_age_ms)).fill_null(False)


def is_crossed(rules: RuleSet, quote: Quote) -> pl.Expr:
    """Tell whether bid stands above ask and the rules give such a quote no side."""
    if not rules.tolerance_within_spread:
        return pl.lit(False)
    return (quote.bid > quote.ask).fill_null(False) & quote.bid.is_finite().fill_null(False) & (quote.ask > 0).fill_null(False)


def side_code(rules: RuleSet, price: pl.Expr, quote: Quote, quoted: pl.Expr, stale: pl.Expr, *, stale_first: bool = False) -> pl.Expr:
    """Return the index into SIDES.

    Args:
        stale_first: test age before the quote's own soundness, as the reference does for packets and equities.
    """
    bid, ask = quote.bid, quote.ask
    spread = pl.max_horizontal(ask - bid, pl.lit(0.0))
    tolerance = pl.max_horizontal(TOLERANCE_OF_SPREAD * spread, pl.lit(MIN_TOLERANCE_DOLLARS))
    if rules.tolerance_within_spread:
        tolerance = pl.min_horizontal(tolerance, MAX_TOLERANCE_OF_SPREAD * spread)
    malformed = ~(bid.is_finite() & ask.is_finite() & (ask > 0)).fill_null(False)
    absent = ~(quoted & price.is_finite()).fill_null(False)
    checks: list[tuple[pl.Expr, int | pl.Expr]] = [(malformed, MISSING), (stale, STALE)]
    if stale_first:
        checks.reverse()
    if rules.tolerance_within_spread:
        checks += [(bid > ask, MISSING), (bid == ask, pl.when(price > ask).then(AA).when(price < bid).then(BB).otherwise(MID))]
    checks += [
        (price > ask + tolerance, AA),
        (price >= ask - tolerance, A),
        (price < bid - tolerance, BB),
        (price <= bid + tolerance, B),
    ]
    chain = pl.when(absent).then(pl.lit(MISSING))
    for condition, side in checks:
        chain = chain.when(condition).then(side)  # type: ignore[assignment]
    return chain.otherwise(MID).cast(pl.UInt8)


def side_text(code: pl.Expr) -> pl.Expr:
    """Return the side's name."""
    return code.cat.to(SIDE).cast(pl.String)
