"""Money as integers: micro-dollars per print, summed exactly whatever the batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.errors import FoldError
from flowapp.records.rounding import round_array

MICRO = 1_000_000
STANDARD_MULTIPLIER = 100
"""Deliverable shares of an unadjusted contract; stands in where the multiplier is unknown."""
MAX_PRINT_DOLLARS = 100_000_000_000.0
"""A print worth more is a fault of its feed."""
MAX_PRINT_CONTRACTS = 1_000_000_000
_MICRO_DECIMALS = 6
_INT64_MAX = 2**63 - 1

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def micro_dollars(dollars: pl.Expr) -> pl.Expr:
    """Return whole micro-dollars, nearest."""
    return (dollars * MICRO).round(0, mode="half_to_even").cast(pl.Int64, strict=False)


def dollars(micro: Integers) -> Floats:
    """Return micro-dollars as dollars."""
    return micro / float(MICRO)


def rounded_dollars(micro: Integers, decimals: int) -> Floats:
    """Return micro-dollars as dollars, rounded as `round_array` does; few of them need it."""
    values = dollars(micro)
    odd = np.flatnonzero(micro % 10 ** (_MICRO_DECIMALS - decimals))
    if odd.size:
        values[odd] = round_array(values[odd], decimals)
    return values


def check_sums(values: Integers, starts: Integers) -> None:
    """Refuse non-negative values whose sum over a group would leave 64 bits.

    Raises:
        FoldError: names the sum.
    """
    if not values.size or int(values.max()) * values.size <= _INT64_MAX:
        return
    largest = max(np.add.reduceat(values.astype(object), starts))
    if largest > _INT64_MAX:
        raise FoldError(f"premium of a cluster was {largest / MICRO:.6g} dollars; allowed: at most {_INT64_MAX / MICRO:.6g}")
