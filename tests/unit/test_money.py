from __future__ import annotations

from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowapp.core.money import check_sums, dollars, micro_dollars
from flowapp.errors import FoldError


@given(st.integers(0, 10_000_000), st.integers(1, 1_000_000), st.sampled_from([1, 10, 100]))
def test_micro_dollars_are_exact_for_prices_in_hundredths_of_a_cent(price: int, size: int, multiplier: int) -> None:
    frame = pl.DataFrame({"price": [price / 10_000], "size": [size]})
    found = frame.select(micro_dollars(pl.col("price") * pl.col("size") * multiplier)).item()
    exact = Decimal(price) * size * multiplier * 100
    assert abs(found - exact) <= max(1, exact * Decimal(2) ** -51)


def test_sums_of_micro_dollars_do_not_depend_on_their_grouping() -> None:
    micro = pl.select(micro_dollars(pl.Series([0.1, 0.2, 0.3] * 1000).cast(pl.Float64) * pl.lit(1.0))).to_series().to_numpy()
    assert dollars(micro.sum(keepdims=True))[0] == 600.0


def test_a_sum_beyond_64_bits_is_refused_and_one_below_is_not() -> None:
    values = np.array([2**62, 2**61, 2**62, 2**62], np.int64)
    check_sums(values, np.array([0, 2, 3]))
    with pytest.raises(FoldError, match="premium of a cluster was"):
        check_sums(values, np.array([0, 2]))
