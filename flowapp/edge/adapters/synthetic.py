"""The synthetic market as a feed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from flowapp.edge.adapters.base import EQUITY_QUOTES, EQUITY_TRADES, OPTION_QUOTES, OPTION_TRADES, Chunk
from flowapp.settings import Settings
from flowapp.simulator.generator import Market, Tape
from flowapp.simulator.schedule import TICK_MS

SYNTHETIC = "synthetic"
SLICE_MS = 50
"""Longest stretch of wall time that one chunk stands for when the feed is paced."""
CHUNK_EVENTS = 20_000
BLOCK_TICKS = 600
MS_PER_SECOND = 1000


class SyntheticAdapter:
    """Deliver the synthetic market of the settings, from `start_ts` on, without end or for `limit_ticks`.

    Event time is the pace: a chunk that ends at `upto_ts` is due when that time has come. A chunk stands for at most
    50 ms of wall time at FLOW_SPEED, and has about 20,000 events at most; FLOW_SPEED=0 means no pace and full chunks.
    """

    feed = SYNTHETIC
    vocabulary = SYNTHETIC

    def __init__(self, settings: Settings, start_ts: int, *, limit_ticks: int | None = None, hot_share: float = 0.0) -> None:
        self.market = Market(
            settings.synthetic_seed, settings.options_profile, settings.equities_profile, start_ts, asked_rate(settings), hot_share
        )  # fmt: skip
        self._limit_ticks = limit_ticks
        self._options = settings.options_ingest_adapter == SYNTHETIC
        self._equities = settings.equities_ingest_adapter == SYNTHETIC
        ticks_per_chunk = CHUNK_EVENTS / self.market.events_per_tick
        self._block_ticks = max(1, min(int(ticks_per_chunk), BLOCK_TICKS))
        full_ms = max(1, int(min(ticks_per_chunk, BLOCK_TICKS) * TICK_MS))
        self._slice_ms = min(full_ms, max(1, round(SLICE_MS * settings.flow_speed))) if settings.flow_speed else full_ms

    @property
    def description(self) -> dict[str, int | float | str]:
        """What determines the tape, as the pins of a namespace keep it."""
        return self.market.description

    def chunks(self) -> Iterator[Chunk]:
        """Yield the market's events in order."""
        tick = 0
        while self._limit_ticks is None or tick < self._limit_ticks:
            count = self._block_ticks if self._limit_ticks is None else min(self._block_ticks, self._limit_ticks - tick)
            yield from self._slices(self.market.ticks(tick, count))
            tick += count

    def _slices(self, tape: Tape) -> Iterator[Chunk]:
        wanted = (
            (tape.option_trades, OPTION_TRADES, self._options),
            (tape.option_quotes, OPTION_QUOTES, self._options),
            (tape.equity_trades, EQUITY_TRADES, self._equities),
            (tape.equity_quotes, EQUITY_QUOTES, self._equities),
        )
        kinds = [_complete(frame, schema) if on else pl.DataFrame(schema=schema) for frame, schema, on in wanted]
        bounds = np.array([*range(tape.from_ts + self._slice_ms - 1, tape.upto_ts, self._slice_ms), tape.upto_ts])
        ends = [np.searchsorted(frame["source_ts"].to_numpy(), bounds, side="right").tolist() for frame in kinds]
        starts = [0] * len(kinds)
        for upto_ts, *stops in zip(bounds.tolist(), *ends, strict=True):
            option_trades, option_quotes, equity_trades, equity_quotes = (
                frame.slice(start, stop - start) for frame, start, stop in zip(kinds, starts, stops, strict=True)
            )
            yield Chunk(upto_ts, option_trades, option_quotes, equity_trades, equity_quotes)
            starts = stops


def asked_rate(settings: Settings) -> float | None:
    """Return the option prints a second that SYNTHETIC_RATE or EMIT_INTERVAL_MS asks for; None for the profile's own."""
    if settings.synthetic_rate is None and settings.emit_interval_ms is not None:
        return MS_PER_SECOND / settings.emit_interval_ms
    return settings.synthetic_rate


def _complete(frame: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    """Add the columns of a quote delivered with its trade, which this feed never has."""
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in schema.items() if name not in frame.columns]
    return frame.with_columns(missing).select(schema.names())
