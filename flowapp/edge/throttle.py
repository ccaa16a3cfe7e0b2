"""TESTING_MODE: let only some events through, by feed time, so that a restart lets the same ones through."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from flowapp.edge.adapters.base import Chunk


class Throttle:
    """Of each kind of event one every `least_ms` of feed time (reference 4.8).

    Args:
        least_ms: least feed time between two events of a kind; 0 lets all through.
    """

    def __init__(self, least_ms: int) -> None:
        self._least_ms = least_ms
        self._last: dict[str, int] = {}
        self.dropped = 0

    def apply(self, chunk: Chunk) -> Chunk:
        """Return the chunk with what may pass."""
        if not self._least_ms:
            return chunk
        return replace(
            chunk, option_trades=self._some("ot", chunk.option_trades), option_quotes=self._some("oq", chunk.option_quotes),
            equity_trades=self._some("et", chunk.equity_trades), equity_quotes=self._some("eq", chunk.equity_quotes),
        )  # fmt: skip

    def _some(self, kind: str, frame: pl.DataFrame) -> pl.DataFrame:
        rows = self._passing(kind, frame["source_ts"].to_numpy())
        self.dropped += frame.height - len(rows)
        return frame[rows]

    def _passing(self, kind: str, ts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
        newest = np.maximum.accumulate(ts) if ts.size else ts
        rows: list[int] = []
        at = 0
        while at < newest.size:
            if kind in self._last:
                at = int(np.searchsorted(newest, self._last[kind] + self._least_ms))
                if at == newest.size:
                    break
            rows.append(at)
            self._last[kind] = int(newest[at])
            at += 1
        return rows
