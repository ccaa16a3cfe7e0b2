"""Option contract ids: printed and read (reference 2.13)."""

from __future__ import annotations

import datetime as dt
import math
import re
from functools import lru_cache
from typing import NamedTuple

import polars as pl

from flowapp.records.rounding import fixed_text

STRIKE_DECIMALS = 3
CONTRACT_TABLE = pl.Schema(
    {"option_contract_id": pl.String, "root": pl.String, "expiry": pl.String, "strike": pl.Float64, "right": pl.String}
)
# What JavaScript trims, and what its number parsing accepts beside blank text.
_SPACE = "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RADIX = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")
_OCC_TAIL = re.compile(r"([0-9]{2})([0-9]{2})([0-9]{2})([CP])([0-9]{8})")
_OCC_TAIL_LENGTH = 15
_USUAL = r"^(?<root>.+)-(?<expiry>[0-9]{4}-[0-9]{2}-[0-9]{2})-(?<strike>[0-9]{1,9}(?:\.[0-9]{1,6})?)-(?<right>[CP])$"


class Contract(NamedTuple):
    """What a contract id says: root in its own case, ISO expiry, strike in dollars, C or P."""

    root: str
    expiry: str
    strike: float
    right: str


def contract_id(root: str, expiry: str, strike: float, right: str) -> str:
    """Print a contract's canonical id, such as SPY-2025-01-17-450.5-C."""
    return f"{root}-{expiry}-{strike_text(strike)}-{right}"


def strike_text(strike: float) -> str:
    """Print a strike with 3 decimals, then without trailing zeros."""
    return fixed_text(strike, STRIKE_DECIMALS).rstrip("0").rstrip(".")


@lru_cache(maxsize=65536)
def parse_contract(text: str | None) -> Contract | None:
    """Read a contract id, dashed or OCC; None for what is no contract."""
    if not text:
        return None
    return _parse_dashed(text) or _parse_occ(text)


def _parse_dashed(text: str) -> Contract | None:
    parts = text.split("-")
    if len(parts) < 6 or parts[-1] not in ("C", "P"):
        return None
    root, expiry, strike = "-".join(parts[:-5]), "-".join(parts[-5:-2]), _number(parts[-2])
    if not root or not math.isfinite(strike):
        return None
    return Contract(root, expiry, strike, parts[-1])


def _number(text: str) -> float:
    trimmed = text.strip(_SPACE)
    if not trimmed:
        return 0.0
    if _DECIMAL.fullmatch(trimmed):
        return float(trimmed)
    return float(int(trimmed, 0)) if _RADIX.fullmatch(trimmed) else math.nan


def _parse_occ(text: str) -> Contract | None:
    match = _OCC_TAIL.fullmatch(text[-_OCC_TAIL_LENGTH:])
    root = text[:-_OCC_TAIL_LENGTH].strip(_SPACE)
    if match is None or not root:
        return None
    year, month, day = (int(match[group]) for group in (1, 2, 3))
    years, months = divmod(month - 1, 12)
    expiry = dt.date(2000 + year + years, months + 1, 1) + dt.timedelta(days=day - 1)
    return Contract(root, expiry.isoformat(), int(match[5]) / 1000, match[4])


def contract_table(ids: pl.Series) -> pl.DataFrame:
    """Return one row per distinct id with its parts, null where the id is no contract; ids ascend."""
    distinct = pl.DataFrame({"option_contract_id": ids.unique().drop_nulls().sort()}, schema={"option_contract_id": pl.String})
    usual = distinct.with_columns(pl.col("option_contract_id").str.extract_groups(_USUAL).alias("_parts")).unnest("_parts")
    table = usual.with_columns(pl.col("strike").cast(pl.Float64)).select(CONTRACT_TABLE.names())
    unusual = table.filter(pl.col("root").is_null())["option_contract_id"].to_list()
    if not unusual:
        return table
    rows = [(text, *(parse_contract(text) or (None,) * len(Contract._fields))) for text in unusual]
    parsed = pl.DataFrame(rows, schema=CONTRACT_TABLE, orient="row")
    return pl.concat([table.filter(pl.col("root").is_not_null()), parsed]).sort("option_contract_id")
