"""Parent orders of options: bursts, their runs, and the contracts that each run trades."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowapp.simulator import market
from flowapp.simulator.calendar import CHOSEN, DAILY_CLASS, DAY_MS, EXPIRY_WEIGHTS, NEXT, WEEKLY_CLASS, Sessions
from flowapp.simulator.dice import Cut, Dice, Flags, Floats, Ints, Stream, below, pick, unit
from flowapp.simulator.scenarios import (
    CONDITION_WORDS,
    FAR_MONEYNESS,
    MONEYNESS,
    MONEYNESS_WEIGHTS,
    OPTION_VENUES,
    PACKAGES,
    Profile,
)
from flowapp.simulator.schedule import TICK_MS, Schedule, Slots
from flowapp.simulator.symbols import PER_MILLE, SPY, STRIKE_STEPS, choose

# A run begins early enough in its tick for all its prints to fall into it.
FIRST_OFFSET_MS, LAST_OFFSET_MS = 5, 920
CONTRACT_SHARES = 100
MOST_CONTRACTS = 20_000
HALF_DOLLARS = 2
EXPIRY_MOMENT_MS = 20 * 3_600_000
CALM_MARGIN_MS = 15 * 60_000


@dataclass(frozen=True)
class Runs:
    """Runs of parent orders, one row each, in slot order."""

    slot: Ints
    burst: Ints
    ts: Ints
    symbol: Ints
    scenario: Ints
    package: Ints
    """Number of the package, -1 for a single contract."""
    count: Ints
    size: Ints
    venue: Ints
    word: Ints
    leg: Ints
    """Row of the first leg."""


@dataclass(frozen=True)
class Legs:
    """Contracts of the runs, one row each, in slot order."""

    symbol: Ints
    expiry: Ints
    """Days since 1970."""
    strike: Ints
    """Half dollars."""
    is_call: Flags
    value: Floats
    """Dollars a share when the run begins."""
    ratio: Ints
    direction: Ints
    """1 for a bought leg of a package, -1 for a sold one, 0 for a single contract."""
    calm: Flags


class Orders:
    """Generate the parent orders of one profile; every choice is a function of the burst's number."""

    def __init__(self, dice: Dice, paths: market.Paths, profile: Profile, schedule: Schedule, start_ts: int, hot_share: float) -> None:
        self._dice, self._paths, self._schedule, self._start_ts = dice, paths, schedule, start_ts
        self._hot_per_mille = round(hot_share * PER_MILLE)
        self._walk = dice.one(Stream.WALK) % PER_MILLE
        scenarios = profile.scenarios
        self._weights = tuple(s.weight for s in scenarios)
        self._counts: Ints = np.array([s.prints for s in scenarios], dtype=np.int64)
        self._notionals: Floats = np.array([s.notional for s in scenarios], dtype=np.float64)
        self._contracts: Ints = np.array([s.contracts or (0, 0) for s in scenarios], dtype=np.int64)
        self._rights: Ints = np.array([{"C": 1, "P": 0}.get(s.right or "", -1) for s in scenarios], dtype=np.int64)
        self._is_package: Flags = np.array([s.package for s in scenarios])
        self._word_counts: Ints = np.array([len(s.words) for s in scenarios], dtype=np.int64)
        longest = int(self._word_counts.max())
        self._words: Ints = np.array([[CONDITION_WORDS.index(w) for w in (s.words * longest)[:longest]] for s in scenarios], dtype=np.int64)
        self._table = _PackageTable.build()

    def place(self, slots: Slots) -> tuple[Runs, Legs]:
        """Return the runs that take these slots, and their contracts."""
        burst, roll = slots.burst, self._dice.roll
        ts, first_ts = self._ts(slots.slot), self._ts(slots.first_slot)
        symbol = self._symbols(burst)
        scenario = pick(self._weights, roll(Stream.SCENARIO, burst))
        package = np.where(self._is_package[scenario], below(roll(Stream.PACKAGE, burst), len(PACKAGES)), -1)
        low, high = self._counts[scenario].T
        count = np.where(package >= 0, self._table.legs[package], low + below(roll(Stream.COUNT, burst), high - low + 1))
        leg_count = np.where(package >= 0, count, 1)
        legs = self._legs(burst, symbol, scenario, package, leg_count, ts, first_ts)
        first_leg = np.cumsum(leg_count) - leg_count
        size = self._sizes(burst, scenario, legs.value[first_leg] * count)
        venue = below(roll(Stream.VENUE, burst), len(OPTION_VENUES))
        word = self._words[scenario, below(roll(Stream.WORD, burst), self._word_counts[scenario])]
        return Runs(slots.slot, burst, ts, symbol, scenario, package, count, size, venue, word, first_leg), legs

    def _ts(self, slot: Ints) -> Ints:
        offset = FIRST_OFFSET_MS + below(self._dice.roll(Stream.OFFSET, slot), LAST_OFFSET_MS - FIRST_OFFSET_MS)
        return self._start_ts + self._schedule.tick_of(slot) * TICK_MS + offset

    def _symbols(self, burst: Ints) -> Ints:
        draws = self._dice.roll(Stream.SYMBOL, burst)
        symbol = choose(below(draws, PER_MILLE), burst + self._walk)
        return np.where(Cut(draws).below(PER_MILLE) < self._hot_per_mille, SPY, symbol)

    def _sizes(self, burst: Ints, scenario: Ints, dollars_per_share: Floats) -> Ints:
        draws = self._dice.roll(Stream.SIZE, burst)
        low, high = self._notionals[scenario].T
        by_notional = np.rint((low + (high - low) * unit(draws)) / (dollars_per_share * CONTRACT_SHARES))
        least, most = self._contracts[scenario].T
        by_contracts: Ints = least + below(draws, most - least + 1)
        return np.where(most > 0, by_contracts, np.clip(by_notional, 1, MOST_CONTRACTS).astype(np.int64))

    def _legs(self, burst: Ints, symbol: Ints, scenario: Ints, package: Ints, leg_count: Ints, ts: Ints, first_ts: Ints) -> Legs:
        """Choose contracts as the burst finds the market at its first run; value them as this run finds it."""
        if not len(ts):
            none: Flags = np.zeros(0, dtype=np.bool_)
            return Legs(ts, ts, ts, none, np.zeros(0), ts, ts, none)
        near, later = self._expiries(burst, symbol, first_ts)
        right = self._rights[scenario]
        is_call = np.where(right >= 0, right == 1, Cut(self._dice.roll(Stream.RIGHT, burst)).flip())
        strike = self._strikes(burst, symbol, scenario, first_ts, near, is_call)
        run = np.repeat(np.arange(len(ts), dtype=np.int64), leg_count)
        number = np.arange(len(run), dtype=np.int64) - np.repeat(np.cumsum(leg_count) - leg_count, leg_count)
        kind, symbol, ts = package[run], symbol[run], ts[run]
        step = np.rint(STRIKE_STEPS[symbol] * HALF_DOLLARS).astype(np.int64)
        leg_strike = np.maximum(strike[run] + self._table.strikes[kind, number] * step, step)
        leg_call = is_call[run] ^ self._table.other_right[kind, number]
        expiry = np.where(self._table.later[kind, number], later[run], near[run])
        value = self._values(symbol, ts, leg_strike, leg_call, expiry)
        calm = Sessions.covering(int(ts.min()), int(ts.max())).calm(ts, CALM_MARGIN_MS)
        return Legs(symbol, expiry, leg_strike, leg_call, value, self._table.ratio[kind, number], self._table.direction[kind, number], calm)

    def _expiries(self, burst: Ints, symbol: Ints, ts: Ints) -> tuple[Ints, Ints]:
        sessions = Sessions.covering(int(ts.min()), int(ts.max()))
        wish = pick(EXPIRY_WEIGHTS, self._dice.roll(Stream.EXPIRY, burst))
        days = sessions.expiries[sessions.index(ts), np.where(symbol == SPY, DAILY_CLASS, WEEKLY_CLASS), wish]
        return days[:, CHOSEN], days[:, NEXT]

    def _strikes(self, burst: Ints, symbol: Ints, scenario: Ints, ts: Ints, expiry: Ints, is_call: Flags) -> Ints:
        draws = self._dice.roll(Stream.MONEYNESS, burst)
        near = np.array(MONEYNESS)[pick(MONEYNESS_WEIGHTS, draws)]
        far = np.array(FAR_MONEYNESS)[below(draws, len(FAR_MONEYNESS))]
        away = np.where(self._contracts[scenario, 1] > 0, far, near) * np.where(is_call, 1.0, -1.0)
        move = self._paths.move(symbol, ts - self._start_ts)
        price = market.price_after(symbol, move)
        spread = market.deviation(price, market.volatility(symbol, move, np.ones(len(ts))), _life_days(expiry, ts))
        step = STRIKE_STEPS[symbol]
        return np.rint(np.maximum(np.rint((price + away * spread) / step), 1.0) * step * HALF_DOLLARS).astype(np.int64)

    def _values(self, symbol: Ints, ts: Ints, strike_half: Ints, is_call: Flags, expiry: Ints) -> Floats:
        move, strike = self._paths.move(symbol, ts - self._start_ts), strike_half / HALF_DOLLARS
        price = market.price_after(symbol, move)
        spread = market.deviation(price, market.volatility(symbol, move, strike / price), _life_days(expiry, ts))
        return market.option_value(price, strike, is_call, spread)


def _life_days(expiry: Ints, ts: Ints) -> Floats:
    return (expiry * DAY_MS + EXPIRY_MOMENT_MS - ts) / DAY_MS


@dataclass(frozen=True)
class _PackageTable:
    """`PACKAGES` as arrays [package, leg]; the last row stands for a single contract."""

    legs: Ints
    strikes: Ints
    later: Flags
    other_right: Flags
    ratio: Ints
    direction: Ints

    @classmethod
    def build(cls) -> _PackageTable:
        most = max(len(legs) for legs in PACKAGES.values())
        shape = (len(PACKAGES) + 1, most)
        strikes, ratio, direction = (np.full(shape, fill, dtype=np.int64) for fill in (0, 1, 0))
        later, other_right = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
        for row, legs in enumerate(PACKAGES.values()):
            for column, leg in enumerate(legs):
                strikes[row, column], ratio[row, column], direction[row, column] = leg.strikes, leg.ratio, 1 if leg.buys else -1
                later[row, column], other_right[row, column] = leg.later, leg.other_right
        return cls(np.array([*(len(legs) for legs in PACKAGES.values()), 1], dtype=np.int64), strikes, later, other_right, ratio, direction)
