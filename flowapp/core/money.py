"""Money as integers: micro-dollars per print, summed exactly whatever the batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

MICRO = 1_000_000
STANDARD_MULTIPLIER = 100
"""Deliverable shares of an unadjusted contract; stands in where the multiplier is unknown."""
MAX_PRINT_DOLLARS = 100_000_000_000.0
"""A print worth more is a fault of its feed."""
MAX_PRINT_CONTRACTS = 1_000_000_000
_INT64_MAX = 2**63 - 1

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def micro_dollars(dollars: pl.Expr) -> pl.Expr:
    """Return whole micro-dollars, nearest."""
    return (dollars * MICRO).round(0, mode="half_to_even").cast(pl.Int64, strict=False)


def dollars(micro: Integers) -> Floats:
    """Return micro-dollars as dollars."""
    return micro / float(MICRO)


def may_overflow(values: Integers) -> bool:
    """Tell whether a sum over some of these non-negative values could leave 64 bits."""
    return bool(values.size) and int(values.max()) * values.size > _INT64_MAX
