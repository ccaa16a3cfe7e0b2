"""Numbers as the reference rounds and prints them (reference appendix C): JavaScript's rules, exactly.

Rounding to decimals looks at the exact binary value; an exact tie goes away from zero. The vector forms equal the
scalar ones, which are the definition, bit for bit. Neither returns a negative zero.
"""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]

_EXACT = Context(prec=1100)
# Veltkamp's constant splits a double into halves whose products with a short factor are exact.
_SPLIT = 134217729.0
_WHOLE = 2.0**52


def round_to(value: float, decimals: int) -> float:
    """Round to `decimals`; ties of the exact binary value go away from zero. NaN and infinities stay."""
    if not math.isfinite(value):
        return value
    rounded = float(Decimal(abs(value)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP, _EXACT))
    return math.copysign(rounded, value) if rounded else 0.0


def round2(value: float) -> float:
    """Round to 2 decimals."""
    return round_to(value, 2)


def round4(value: float) -> float:
    """Round to 4 decimals."""
    return round_to(value, 4)


def round_array(values: npt.ArrayLike, decimals: int) -> Floats:
    """Round every value as `round_to` does.

    |x| x 10^d is taken as a product and its exact error (Dekker 1971), so the comparison with one half is exact.
    """
    x = np.asarray(values, np.float64)
    scale = float(10**decimals)
    magnitude = np.abs(x)
    small = magnitude < _WHOLE / scale
    work = np.where(small, magnitude, 0.0)
    product = work * scale
    shifted = work * _SPLIT
    high = shifted - (shifted - work)
    error = (high * scale - product) + (work - high) * scale
    whole = np.floor(product)
    whole += (product - whole - 0.5) + error >= 0
    rounded = np.copysign(whole / scale, x) + 0.0
    large = np.flatnonzero(~small & np.isfinite(x))
    result = np.where(small, rounded, x)
    result[large] = [round_to(value, decimals) for value in x[large].tolist()]
    return result


def round2_array(values: npt.ArrayLike) -> Floats:
    """Round every value to 2 decimals."""
    return round_array(values, 2)


def round4_array(values: npt.ArrayLike) -> Floats:
    """Round every value to 4 decimals."""
    return round_array(values, 4)


def round_series(series: pl.Series, decimals: int) -> pl.Series:
    """Round every value of a column as `round_to` does; null stays null."""
    rounded = pl.Series(series.name, round_array(series.cast(pl.Float64).to_numpy(), decimals))
    return rounded if not series.null_count() else pl.select(pl.when(series.is_not_null()).then(rounded)).to_series().alias(series.name)


def round_expr(expression: pl.Expr, decimals: int) -> pl.Expr:
    """Return an expression that rounds as `round_to` does."""
    return expression.map_batches(lambda series: round_series(series, decimals), return_dtype=pl.Float64(), is_elementwise=True)


def fixed_text(value: float, decimals: int) -> str:
    """Print with `decimals` digits after the point; ties of the exact binary value go away from zero."""
    return str(Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP, _EXACT))


def number_text(value: float) -> str:
    """Print a number as JavaScript does: 450.0 as 450, 450.5 as 450.5, otherwise the shortest text that reads back."""
    if isinstance(value, int):
        return str(value)
    if math.isnan(value):
        return "NaN"
    sign = "-" if value < 0 else ""
    if math.isinf(value):
        return f"{sign}Infinity"
    _, digit_tuple, exponent = Decimal(repr(abs(value))).normalize().as_tuple()
    digits, point = "".join(map(str, digit_tuple)), len(digit_tuple) + int(exponent)
    if value == 0:
        return "0"
    if len(digits) <= point <= 21:
        return sign + digits + "0" * (point - len(digits))
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{sign}{mantissa}e{point - 1:+d}"


def number_texts(series: pl.Series) -> pl.Series:
    """Print a column's numbers as `number_text` does; null stays null."""
    distinct = series.unique().drop_nulls()
    texts: list[Any] = [number_text(value) for value in distinct.to_list()]
    return series.replace_strict(distinct, pl.Series(texts, dtype=pl.String), return_dtype=pl.String, default=None)
