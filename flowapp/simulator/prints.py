"""Option prints of the runs, the quote that stands before each, and the cancels of some."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowapp.simulator import market
from flowapp.simulator.dice import NARROW, Cut, Dice, Flags, Floats, Ints, Stream, below
from flowapp.simulator.orders import Legs, Orders, Runs
from flowapp.simulator.scenarios import (
    CANCEL_DELAY_MS,
    CANCEL_ONE_IN_RUNS,
    OPTION_VENUES,
    REST_PER_CENT,
    Placement,
    Profile,
)
from flowapp.simulator.schedule import Slots

PRINT_SPACING_MS = 5
NUMBER_BITS = 5
MID_WAVE, SIZE_WAVE = 0.004, 0.08
WAVE_LENGTH = 3
QUOTE_SIZE_STEPS, QUOTE_SIZE_LOW, QUOTE_SIZE_RANGE = 256, 0.2, 1.5
LEAST_OUTSIDE_CENTS, OUTSIDE_SPREAD_PARTS = 2, 4
PER_CENT = 100
# The venue of an at-the-quote print is mostly the one that quotes.
QUOTING_VENUE_PER_CENT = 70
_BUY, _SELL = 1, -1


@dataclass(frozen=True)
class Prints:
    """Prints with the quote that stands before each, in slot order; prices in cents."""

    ts: Ints
    run: Ints
    leg: Ints
    price: Ints
    size: Ints
    venue: Ints
    word: Ints
    bid: Ints
    ask: Ints
    bid_size: Ints
    ask_size: Ints
    bid_venue: Ints
    ask_venue: Ints
    aggressor: Ints
    """1 when the buyer crossed the spread, -1 when the seller did."""
    customer: Ints
    """1 when the customer bought, -1 when the customer sold."""


@dataclass(frozen=True)
class Flow:
    """What slots bring about; a cancel repeats the print in its row of `cancelled`, later."""

    runs: Runs
    legs: Legs
    prints: Prints
    cancelled: Ints
    cancel_ts: Ints


class OptionFlow:
    """Generate the option prints of one profile."""

    def __init__(self, dice: Dice, orders: Orders, profile: Profile) -> None:
        self._dice, self._orders = dice, orders
        scenarios = profile.scenarios
        self._placements: Ints = np.cumsum([s.placement for s in scenarios], axis=1, dtype=np.int64)
        self._trends: Floats = np.array([s.trend for s in scenarios])
        self._sweeps: Flags = np.array([s.sweeps for s in scenarios])
        self._rests: Flags = np.array([s.rests for s in scenarios])

    def of(self, slots: Slots) -> Flow:
        """Generate what these slots bring about."""
        runs, legs = self._orders.place(slots)
        prints = self._prints(runs, legs)
        which = np.flatnonzero(self.cancels(slots) & (runs.package < 0))
        cut = Cut(self._dice.roll(Stream.CANCELLED, runs.slot[which]))
        first = np.cumsum(runs.count) - runs.count
        cancelled = first[which] + cut.below(runs.count[which])
        low, high = CANCEL_DELAY_MS
        return Flow(runs, legs, prints, cancelled, prints.ts[cancelled] + low + cut.below(high - low + 1))

    def cancels(self, slots: Slots) -> Flags:
        """Tell which slots have a print that is cancelled (unless they turn out to be a package)."""
        chosen: Flags = below(self._dice.roll(Stream.CANCEL, slots.slot), CANCEL_ONE_IN_RUNS) == 0
        return chosen

    def _prints(self, runs: Runs, legs: Legs) -> Prints:
        run = np.repeat(np.arange(len(runs.slot), dtype=np.int64), runs.count)
        number = np.arange(len(run), dtype=np.int64) - np.repeat(np.cumsum(runs.count) - runs.count, runs.count)
        key = (runs.slot[run] << NUMBER_BITS) + number
        cut, quote_cut = Cut(self._dice.roll(Stream.PRINT, key)), Cut(self._dice.roll(Stream.QUOTE, key))
        single, scenario = runs.package[run] < 0, runs.scenario[run]
        leg = runs.leg[run] + np.where(single, 0, number)
        wave = np.where(single, number % WAVE_LENGTH - 1, 0)
        value = legs.value[leg] * (1.0 + np.where(single, self._trends[scenario] * number + MID_WAVE * wave, 0.0))
        quotes = market.option_quotes(legs.symbol[leg], value, legs.calm[leg], quote_cut.share())
        direction = legs.direction[leg] * np.where(cut.flip(), _BUY, _SELL)
        place = self._place(scenario, cut.below(PER_CENT), direction)
        price = _price(place, quotes, market.price_tick(legs.symbol[leg], quotes.mid))
        size = np.maximum(np.rint(runs.size[run] * (1.0 + SIZE_WAVE * wave)).astype(np.int64), 1) * legs.ratio[leg]
        at_quote = (place == Placement.ASK) | (place == Placement.BID)
        rests = self._rests[scenario] & at_quote & (cut.below(PER_CENT) < REST_PER_CENT)
        coin = np.where(direction != 0, direction, np.where(cut.flip(), _BUY, _SELL))
        aggressor = np.where(place < Placement.MID, _BUY, np.where(place > Placement.MID, _SELL, coin))
        venue = (runs.venue[run] + np.where(self._sweeps[scenario], number, 0)) % len(OPTION_VENUES)
        ts = runs.ts[run] + np.where(single, number * PRINT_SPACING_MS, 0)
        sides = _quoting(place, rests, size, venue, quote_cut)
        customer = np.where(rests, -aggressor, aggressor)
        return Prints(ts, run, leg, price, size, venue, runs.word[run], quotes.bid, quotes.ask, *sides, aggressor, customer)

    def _place(self, scenario: Ints, draw: Ints, direction: Ints) -> Ints:
        place = np.zeros(len(draw), dtype=np.int64)
        for bound in self._placements.T:
            place += draw >= bound[scenario]
        at_quote = np.where(direction > 0, Placement.ASK, Placement.BID)
        return np.where((direction != 0) & (place != Placement.MID), at_quote, place)


def _price(place: Ints, quotes: market.Quotes, tick: Ints) -> Ints:
    outside = np.maximum((quotes.ask - quotes.bid) // OUTSIDE_SPREAD_PARTS, LEAST_OUTSIDE_CENTS)
    outside = -(-outside // tick) * tick
    below_bid = np.where(quotes.bid > outside, quotes.bid - outside, quotes.bid)
    return np.choose(place, (quotes.ask + outside, quotes.ask, quotes.mid, quotes.bid, below_bid))


def _quoting(place: Ints, rests: Flags, size: Ints, venue: Ints, cut: Cut) -> tuple[Ints, Ints, Ints, Ints]:
    """Return sizes and venues at the bid and the ask; a resting order is the whole quote at its venue."""
    sizes, venues = [], []
    for side in (Placement.BID, Placement.ASK):
        share = QUOTE_SIZE_LOW + QUOTE_SIZE_RANGE * cut.below(QUOTE_SIZE_STEPS, NARROW) / QUOTE_SIZE_STEPS
        hit = place == side
        sizes.append(np.where(rests & hit, size, np.maximum(np.rint(size * share).astype(np.int64), 1)))
        same = hit & (rests | (cut.below(PER_CENT, NARROW) < QUOTING_VENUE_PER_CENT))
        venues.append(np.where(same, venue, cut.below(len(OPTION_VENUES), NARROW)))
    return sizes[0], sizes[1], venues[0], venues[1]
