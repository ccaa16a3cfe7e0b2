"""The band of an equity's quotes over the last seconds, for reports that do not say when the trade happened."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from flowapp.edge.book import Floats
from flowapp.edge.order import Ints

_PLACE_BITS = 32
_TIME_BITS = 40

Columns: TypeAlias = tuple[Floats, Floats, Floats, Floats]


class Band:
    """Lowest and highest bid and ask that stood at some moment of the last `span_ms`."""

    def __init__(self, span_ms: int) -> None:
        self._span_ms = span_ms
        self._code: Ints = np.empty(0, np.int64)
        self._time: Ints = np.empty(0, np.int64)
        self._bid: Floats = np.empty(0, np.float64)
        self._ask: Floats = np.empty(0, np.float64)

    def keep(self, code: Ints, place: Ints, time: Ints, bid: Floats, ask: Floats) -> _Window:
        """Take a batch's quotes, ascending by place and by effective time; returns what prints of the batch look at."""
        two_sided = ~(np.isnan(bid) | np.isnan(ask))
        old = np.full(self._code.size, -1, np.int64)
        code, place = np.concatenate((self._code, code[two_sided])), np.concatenate((old, place[two_sided]))
        time = np.concatenate((self._time, time[two_sided]))
        bid, ask = np.concatenate((self._bid, bid[two_sided])), np.concatenate((self._ask, ask[two_sided]))
        order = np.argsort(code, kind="stable")
        code, place, time, bid, ask = code[order], place[order], time[order], bid[order], ask[order]
        self._code, self._time, self._bid, self._ask = code, time, bid, ask
        return _Window(self._span_ms, code, place, time, bid, ask)

    def forget(self, newest: int) -> None:
        """Drop quotes that no longer stood at `newest` - span."""
        if not self._code.size:
            return
        replaced = np.append((self._code[1:] == self._code[:-1]) & (self._time[1:] <= newest - self._span_ms), False)
        keep = ~replaced
        self._code, self._time = self._code[keep], self._time[keep]
        self._bid, self._ask = self._bid[keep], self._ask[keep]


class _Window:
    """Quotes by (instrument, place), those of earlier batches first."""

    def __init__(self, span_ms: int, code: Ints, place: Ints, time: Ints, bid: Floats, ask: Floats) -> None:
        self._span_ms = span_ms
        self._code, self._bid, self._ask = code, bid, ask
        self._by_place = (code << _PLACE_BITS) + place
        self._origin = int(time.min()) if time.size else 0
        self._by_time = (code << _TIME_BITS) + time - self._origin

    def around(self, code: Ints, place: Ints, time: Ints) -> Columns:
        """Return (lowest bid, highest bid, lowest ask, highest ask) before each print; NaN where nothing stood."""
        first = np.searchsorted(self._code, code)
        end = np.searchsorted(self._by_place, (code << _PLACE_BITS) + place)
        since = np.maximum(time - self._span_ms - self._origin, -1)
        start = np.maximum(np.searchsorted(self._by_time, (code << _TIME_BITS) + since, "right") - 1, first)
        some = end > start
        results = []
        for column, smallest in ((self._bid, True), (self._bid, False), (self._ask, True), (self._ask, False)):
            values = np.full(code.size, np.nan)
            values[some] = _extreme(column, start[some], end[some], smallest=smallest)
            results.append(values)
        return results[0], results[1], results[2], results[3]


def _extreme(values: Floats, start: Ints, end: Ints, *, smallest: bool) -> Floats:
    """Return the extreme of values[start:end] of each range, by a table of ranges whose lengths are powers of two."""
    result = np.empty(start.size, np.float64)
    if not start.size:
        return result
    pick: np.ufunc = np.minimum if smallest else np.maximum
    level = np.frexp((end - start).astype(np.float64))[1] - 1
    table: npt.NDArray[np.float64] = values
    for number in range(int(level.max()) + 1):
        width = 1 << number
        here = level == number
        result[here] = pick(table[start[here]], table[end[here] - width])
        if number < level.max():
            table = pick(table[:-width], table[width:])
    return result
