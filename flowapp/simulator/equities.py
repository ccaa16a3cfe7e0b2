"""Equity prints, on exchanges and off, each with the quote that stands before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowapp.simulator import market
from flowapp.simulator.dice import NARROW, Cut, Dice, Flags, Ints, Rolls, Stream, below, joined, pick
from flowapp.simulator.scenarios import DARK_STEPS, EQUITY_PLACEMENT, EQUITY_VENUES, REPORTING_FACILITIES, EquityPlan, Placement
from flowapp.simulator.schedule import TICK_MS
from flowapp.simulator.symbols import PER_MILLE, choose

FIRST_OFFSET_MS, LAST_OFFSET_MS = 5, 995
QUOTE_LEAD_MS, EXECUTION_LEAD_MS = 2, 1
NONE = -1
# The feed runs at the options' multiple of their default rate, up to this one.
MOST_SCALE = 200.0

ROUND_LOT, ROUNDED_PER_CENT, PER_CENT = 100, 60, 100
UNTIMED_REPORT_ONE_IN = 4
QUOTE_LOTS = 20
# A price beyond the quote is 1.5 tolerances away; the tolerance is a cent or 5 % of the spread (reference 17.6).
TOLERANCE_CENTS, TOLERANCE_PARTS = 1, 20
OUTSIDE_NUMERATOR, OUTSIDE_DENOMINATOR = 3, 2
_DARK_WALK = 1 << 32


@dataclass(frozen=True)
class EquityQuotes:
    """Quotes in cents, sizes in shares."""

    ts: Ints
    symbol: Ints
    bid: Ints
    ask: Ints
    bid_size: Ints
    ask_size: Ints
    bid_venue: Ints
    ask_venue: Ints


@dataclass(frozen=True)
class EquityPrints:
    """Prints in cents; a print off exchange has a facility, others -1."""

    ts: Ints
    symbol: Ints
    price: Ints
    size: Ints
    venue: Ints
    """-1 off exchange."""
    facility: Ints
    exec_ts: Ints
    """-1 when not reported."""
    step: Ints
    """Position in a dark sequence, -1 for others."""


class EquityFlow:
    """Generate the equity prints of one profile."""

    def __init__(self, dice: Dice, paths: market.Paths, plan: EquityPlan, start_ts: int, scale: float) -> None:
        self._dice, self._paths, self._plan, self._start_ts = dice, paths, plan, start_ts
        scale = min(scale, MOST_SCALE)
        self.lit_per_tick = max(1, round(plan.lit_prints * scale))
        self.dark_lanes = max(1, round(scale))
        self._walk = dice.one(Stream.WALK, 1) % PER_MILLE

    @property
    def most_per_tick(self) -> int:
        """Largest number of prints of a tick."""
        return self.lit_per_tick + self.dark_lanes

    def events(self, first_tick: int, end_tick: int) -> tuple[EquityPrints, EquityQuotes]:
        """Return the prints of ticks `first_tick` to `end_tick` - 1, and the quote before each."""
        (dark, dark_quotes), (lit, lit_quotes) = self._dark(first_tick, end_tick), self._lit(first_tick, end_tick)
        return joined(dark, lit), joined(dark_quotes, lit_quotes)

    def _dark(self, first_tick: int, end_tick: int) -> tuple[EquityPrints, EquityQuotes]:
        """Return the steps of dark sequences: a block at the midpoint, four buys, four sells, all off exchange."""
        every, lanes = self._plan.dark_every_ticks, self.dark_lanes
        steps = np.arange(-(-first_tick // every), -(-end_tick // every), dtype=np.int64)
        number, lane = np.repeat(steps, lanes), np.tile(np.arange(lanes, dtype=np.int64), len(steps))
        step = (number + lane) % len(DARK_STEPS)
        sequence = ((number + lane) // len(DARK_STEPS)) * lanes + lane
        draws = self._dice.roll(Stream.DARK, sequence)
        symbol = choose(below(draws, PER_MILLE), sequence + self._walk)
        ts = self._offset(Stream.DARK, number * lanes + lane + _DARK_WALK, number * every)
        size = np.where(step == 0, self._plan.block_size, self._plan.accumulation_size).astype(np.int64)
        place = np.array(DARK_STEPS, dtype=np.int64)[step]
        quote_draws = self._dice.roll(Stream.EQUITY_QUOTE, number * lanes + lane + _DARK_WALK)
        return self._prints(ts, symbol, place, size, np.ones(len(ts), dtype=np.bool_), step, quote_draws)

    def _lit(self, first_tick: int, end_tick: int) -> tuple[EquityPrints, EquityQuotes]:
        """Return the other prints; one in `off_exchange_modulus` is off exchange."""
        number = np.arange(first_tick * self.lit_per_tick, end_tick * self.lit_per_tick, dtype=np.int64)
        symbol = choose(below(self._dice.roll(Stream.EQUITY_SYMBOL, number), PER_MILLE), number + self._walk)
        ts = self._offset(Stream.OFFSET, number + _DARK_WALK, number // self.lit_per_tick)
        low, high = self._plan.lit_size
        cut = Cut(self._dice.roll(Stream.EQUITY_PRINT, number))
        place = pick(EQUITY_PLACEMENT, self._dice.roll(Stream.EQUITY_PLACE, number))
        size = low + cut.below(high - low + 1)
        rounded = np.maximum(size // ROUND_LOT * ROUND_LOT, ROUND_LOT)
        size = np.where(cut.below(PER_CENT) < ROUNDED_PER_CENT, rounded, size)
        off_exchange = cut.below(self._plan.off_exchange_modulus) == 0
        step = np.full(len(ts), NONE, dtype=np.int64)
        return self._prints(ts, symbol, place, size, off_exchange, step, self._dice.roll(Stream.EQUITY_QUOTE, number))

    def quotes(self, ts: Ints, symbol: Ints, cut: Cut) -> EquityQuotes:
        """Quote symbols at times."""
        quotes = market.equity_quotes(symbol, market.price_after(symbol, self._paths.move(symbol, ts - self._start_ts)))
        sizes = [(1 + cut.below(QUOTE_LOTS, NARROW)) * ROUND_LOT for _ in range(2)]
        venues = [cut.below(len(EQUITY_VENUES), NARROW) for _ in range(2)]
        return EquityQuotes(ts, symbol, quotes.bid, quotes.ask, sizes[0], sizes[1], venues[0], venues[1])

    def _offset(self, stream: Stream, key: Ints, tick: Ints) -> Ints:
        offset = FIRST_OFFSET_MS + Cut(self._dice.roll(stream, key)).below(LAST_OFFSET_MS - FIRST_OFFSET_MS)
        return self._start_ts + tick * TICK_MS + offset

    def _prints(
        self, ts: Ints, symbol: Ints, place: Ints, size: Ints, off_exchange: Flags, step: Ints, draws: Rolls
    ) -> tuple[EquityPrints, EquityQuotes]:
        cut = Cut(draws)
        quotes = self.quotes(ts - QUOTE_LEAD_MS, symbol, cut)
        venue = np.where(off_exchange, NONE, cut.below(len(EQUITY_VENUES), NARROW))
        facility = np.where(off_exchange, cut.below(len(REPORTING_FACILITIES), NARROW), NONE)
        timed = off_exchange & ((step >= 0) | (cut.below(UNTIMED_REPORT_ONE_IN, NARROW) > 0))
        exec_ts = np.where(timed, ts - EXECUTION_LEAD_MS, NONE)
        return EquityPrints(ts, symbol, _price(place, quotes), size, venue, facility, exec_ts, step), quotes


def _price(place: Ints, quotes: EquityQuotes) -> Ints:
    tolerance = np.maximum((quotes.ask - quotes.bid) // TOLERANCE_PARTS, TOLERANCE_CENTS)
    outside = -(-tolerance * OUTSIDE_NUMERATOR // OUTSIDE_DENOMINATOR)
    prices = {
        Placement.ABOVE_ASK: quotes.ask + outside,
        Placement.ASK: quotes.ask,
        Placement.MID: (quotes.bid + quotes.ask) // 2,
        Placement.BID: quotes.bid,
        Placement.BELOW_BID: quotes.bid - outside,
    }
    return np.choose(place, [prices[key] for key in Placement])
