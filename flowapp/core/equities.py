"""The edge's stamp on equity prints."""

from __future__ import annotations

from functools import lru_cache

import polars as pl

from flowapp.core.placement import EQUITY_QUOTE, is_quoted, is_stale, side_code, side_text
from flowapp.core.rules import OptionRules, option_rules
from flowapp.settings import Settings


def stamp(frame: pl.DataFrame, rules: Settings | OptionRules) -> pl.DataFrame:
    """Add `nbbo_side`, `quote_stale` and `config` to equity prints with their frozen quote (reference 10.1)."""
    return frame.with_columns(_stamping(option_rules(rules)))


@lru_cache(maxsize=16)
def _stamping(wanted: OptionRules) -> list[pl.Expr]:
    trade_ts = pl.col("source_ts")
    quoted = is_quoted(wanted.rules, EQUITY_QUOTE, trade_ts)
    stale = is_stale(wanted.rules, EQUITY_QUOTE, trade_ts, wanted.equity_max_age_ms)
    side = side_code(wanted.rules, pl.col("price"), EQUITY_QUOTE, quoted, stale, stale_first=not wanted.rules.quote_age_by_source)
    return [
        side_text(side).alias("nbbo_side"),
        (~quoted | stale).alias("quote_stale"),
        pl.lit(wanted.config).alias("config"),
    ]
