"""Prices: one path per symbol, option values and quotes from a simple pricing shape.

Everything is exactly rounded arithmetic (no exponentials), in cents once a price is quoted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowapp.simulator.dice import Dice, Flags, Floats, Ints, Stream, unit
from flowapp.simulator.symbols import BASES, IS_HOT, IS_NICKEL, SPY, VOLATILITIES

CENTS = 100
MS = 1000.0
TRADING_SECONDS_PER_YEAR = 252 * 23_400

# A path is a sum of noises, each interpolated between knots 4^k seconds apart, with the spread a random walk has over that time.
OCTAVES = 9
OCTAVE_FACTOR = 4
KNOT_KEY_STEP = 1 << 40
OCTAVE_KEY_STEP = 1 << 52
LOWEST_RELATIVE_PRICE = 0.2

# Implied volatility: it rises when the price falls, and towards low strikes; bounded.
LEVERAGE, SKEW, SMILE = 1.5, 0.8, 1.2
LOWEST_VOLATILITY_FACTOR, HIGHEST_VOLATILITY_FACTOR = 0.5, 2.0
DAYS_PER_YEAR, LEAST_LIFE_DAYS = 365.0, 0.25

# phi(x) - x (1 - Phi(x)) as 1 / polynomial^16, within 0.4 % for 0 <= x <= 3.5.
PEAK = 0.3989423
LOSS_COEFFICIENTS = (0.07745, 0.02326, 0.00141, 0.0008)
FARTHEST = 4.0

PENNY, NICKEL, DIME = 1, 5, 10
# From $3 on the increment is coarser; the limit stands lower so that no ask of a finer quote crosses it.
COARSE_FROM_CENTS = 285
LEAST_SPREAD_PENNIES, LEAST_SPREAD_NICKELS = 4, 2
SPREAD_SHARE, SPREAD_NOISE_LOW, SPREAD_NOISE_RANGE = 0.03, 0.8, 0.6
UNCALM_SPREAD_FACTOR = 1.5
LEAST_VALUE_DOLLARS = 0.05

EQUITY_LEAST_SPREAD_CENTS = 4
EQUITY_SPREAD_HOT, EQUITY_SPREAD = 0.0002, 0.0008


class Paths:
    """Price of every symbol at any time since the start, dollars."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        everyone = np.arange(len(BASES), dtype=np.int64)
        self._origin = np.zeros(len(BASES))
        self._origin = self._noise(everyone, np.zeros(len(BASES)))
        self._amplitude = VOLATILITIES / np.sqrt(float(TRADING_SECONDS_PER_YEAR))

    def move(self, symbol: Ints, elapsed_ms: Ints) -> Floats:
        """Return the relative change of price since the start."""
        noise = self._noise(symbol, elapsed_ms / MS) - self._origin[symbol]
        change: Floats = np.maximum(noise * self._amplitude[symbol], LOWEST_RELATIVE_PRICE - 1.0)
        return change

    def _noise(self, symbol: Ints, seconds: Floats) -> Floats:
        total = np.zeros(len(symbol))
        for octave in range(OCTAVES):
            length = float(OCTAVE_FACTOR**octave)
            place = seconds / length
            knot = np.floor(place)
            key = knot.astype(np.int64) + symbol * KNOT_KEY_STEP + octave * OCTAVE_KEY_STEP
            before, after = (unit(self._dice.roll(Stream.PATH, key + step)) for step in (0, 1))
            total += ((before + (after - before) * (place - knot)) * 2.0 - 1.0) * np.sqrt(length)
        return total


def price_after(symbol: Ints, move: Floats) -> Floats:
    """Return the price after a relative change since the start, dollars."""
    return BASES[symbol] * (1.0 + move)


def deviation(price: Floats, volatility: Floats, life_days: Floats) -> Floats:
    """Return one standard deviation of the price over an option's life, dollars."""
    return price * volatility * np.sqrt(np.maximum(life_days, LEAST_LIFE_DAYS) / DAYS_PER_YEAR)


def volatility(symbol: Ints, move: Floats, strike_over_price: Floats) -> Floats:
    """Return the implied volatility of a strike after a move of the underlying."""
    away = strike_over_price - 1.0
    factor = (1.0 - LEVERAGE * move) * (1.0 - SKEW * away + SMILE * away * away)
    return VOLATILITIES[symbol] * np.clip(factor, LOWEST_VOLATILITY_FACTOR, HIGHEST_VOLATILITY_FACTOR)


def option_value(price: Floats, strike: Floats, is_call: Flags, spread: Floats) -> Floats:
    """Return the value of an option, dollars a share (Bachelier's formula; `spread` is one standard deviation)."""
    x = np.minimum(np.abs(strike - price) / spread, FARTHEST)
    c1, c2, c3, c4 = LOSS_COEFFICIENTS
    root = 1.0 + x * (c1 + x * (c2 + x * (c3 + x * c4)))
    square = root * root
    fourth = square * square
    eighth = fourth * fourth
    intrinsic = np.maximum(np.where(is_call, price - strike, strike - price), 0.0)
    return np.maximum(intrinsic + spread * PEAK / (eighth * eighth), LEAST_VALUE_DOLLARS)


@dataclass(frozen=True)
class Quotes:
    """Best bid and ask, cents."""

    bid: Ints
    ask: Ints

    @property
    def mid(self) -> Ints:
        """Midpoint, rounded down to a cent."""
        return (self.bid + self.ask) // 2


def price_tick(symbol: Ints, cents: Ints) -> Ints:
    """Return the price increment of an option, cents."""
    above = cents >= COARSE_FROM_CENTS
    pennies = np.where(above & (symbol != SPY), NICKEL, PENNY)
    return np.where(IS_NICKEL[symbol], np.where(above, DIME, NICKEL), pennies).astype(np.int64)


def option_quotes(symbol: Ints, value: Floats, calm: Flags, noise: Floats) -> Quotes:
    """Quote options of these values, on their price increments; `noise` in [0, 1) widens the spread."""
    cents = np.rint(value * CENTS).astype(np.int64)
    tick = price_tick(symbol, cents)
    wished = value * CENTS * SPREAD_SHARE * (SPREAD_NOISE_LOW + SPREAD_NOISE_RANGE * noise) * np.where(calm, 1.0, UNCALM_SPREAD_FACTOR)
    least = np.where(tick == PENNY, LEAST_SPREAD_PENNIES, LEAST_SPREAD_NICKELS)
    ticks = np.maximum(np.ceil(wished / tick).astype(np.int64), least)
    bid = np.maximum((cents - ticks * tick // 2) // tick, 1) * tick
    return Quotes(bid, bid + ticks * tick)


def equity_quotes(symbol: Ints, price: Floats) -> Quotes:
    """Quote shares at these prices; a symbol's spread depends on nothing but its price."""
    cents = price * CENTS
    wished = np.rint(cents * np.where(IS_HOT[symbol], EQUITY_SPREAD_HOT, EQUITY_SPREAD))
    width = np.maximum(wished.astype(np.int64), EQUITY_LEAST_SPREAD_CENTS)
    bid = np.floor(cents - width / 2).astype(np.int64)
    return Quotes(bid, bid + width)
