from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flowapp.core.clusters import Arrivals, group

WINDOW_MS = 500
Row = tuple[int, int, bool]


def clusters_of(rows: list[Row]) -> tuple[list[int], set[int]]:
    """Return every row's cluster, and the clusters that a later print closed."""
    contract, ts, late = (np.array(values) for values in zip(*rows, strict=True))
    none = np.full(ts.size, -1)
    arrivals = Arrivals(contract.astype(np.int64), ts.astype(np.int64), np.arange(ts.size), late.astype(bool), none, none * 0, 0)
    found = group(arrivals, WINDOW_MS)
    return found.of_rows(found.name).tolist(), set(found.name[found.superseded].tolist())


def plain(rows: list[Row]) -> tuple[list[int], set[int]]:
    names, closed = [], set()
    current: dict[int, tuple[int, int]] = {}
    late_ones: dict[int, int] = {}
    for place, (contract, ts, late) in enumerate(rows):
        name, start = current.get(contract, (-1, 0))
        if late:
            joins = name >= 0 and start <= ts <= start + WINDOW_MS
            names.append(name if joins else late_ones.setdefault(contract, place))
            continue
        if name < 0 or ts > start + WINDOW_MS:
            closed |= {name} - {-1}
            name, current[contract] = place, (place, ts)
        names.append(name)
    return names, closed


def test_windows_are_anchored_at_their_first_print() -> None:
    names, closed = clusters_of([(1, ts, False) for ts in (0, 300, 500, 501, 900, 1001, 1002, 1600)])
    assert names == [0, 0, 0, 3, 3, 3, 6, 7]
    assert closed == {0, 3, 6}


def test_contracts_do_not_mix() -> None:
    names, closed = clusters_of([(1, 0, False), (2, 10, False), (1, 400, False), (2, 600, False)])
    assert (names, closed) == ([0, 1, 0, 3], {1})


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3_000), st.booleans()), min_size=1, max_size=60))
def test_any_order_of_arrival_gives_what_a_row_by_row_walk_gives(rows: list[Row]) -> None:
    assert clusters_of(rows) == plain(rows)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3_000), st.just(False)), min_size=1, max_size=80))
def test_prints_in_time_order_give_what_a_row_by_row_walk_gives(rows: list[Row]) -> None:
    ordered = sorted(rows, key=lambda row: row[1])
    assert clusters_of(ordered) == plain(ordered)
