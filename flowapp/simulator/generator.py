"""The synthetic market: a pure function of (seed, profiles, start, rate, tick).

One tick is a second of the market's own time. A rate of r is r option prints in each of these seconds, so a feed that
is paced by its event time delivers r prints a second; there is no other clock. Ticks can be had in any portions and
any order: the bytes are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from flowapp.simulator import frames
from flowapp.simulator.dice import Cut, Dice, Ints, Stream, joined
from flowapp.simulator.equities import EquityFlow, EquityPrints, EquityQuotes
from flowapp.simulator.market import Paths
from flowapp.simulator.orders import Orders
from flowapp.simulator.prints import Flow, OptionFlow
from flowapp.simulator.scenarios import (
    CANCEL_DELAY_MS,
    CANCEL_ONE_IN_RUNS,
    CONDITION_WORDS,
    PACKAGES,
    PROFILES,
    Profile,
)
from flowapp.simulator.schedule import TICK_MS, Schedule, Slots

VERSION = 1
"""Of the tape: raise it when the same arguments give other bytes."""

OPTION_QUOTE_LEAD_MS, UNDERLYING_LEAD_MS = 1, 3
CANCEL_LAG_TICKS = -(-(CANCEL_DELAY_MS[1] + TICK_MS) // TICK_MS)
EQUITY_QUOTE, OPTION_QUOTE, EQUITY_PRINT, OPTION_PRINT = range(4)
KINDS = {EQUITY_QUOTE: "eq", OPTION_QUOTE: "on", EQUITY_PRINT: "ep", OPTION_PRINT: "op"}
_CANCEL = CONDITION_WORDS.index("CANCEL")
_MARGIN_SLOTS = 2


@dataclass(frozen=True)
class Tape:
    """Events of some ticks; the columns of each frame are those that a feed delivers, without quotes sent with trades."""

    from_ts: int
    upto_ts: int
    option_trades: pl.DataFrame
    option_quotes: pl.DataFrame
    equity_trades: pl.DataFrame
    equity_quotes: pl.DataFrame


@dataclass(frozen=True)
class _Events:
    """Everything that happens in some ticks, before it becomes frames: rows by kind in feed order, with their numbers."""

    flow: Flow
    equity_prints: EquityPrints
    equity_quotes: EquityQuotes
    print_rows: Ints
    """Rows of the option prints, those of cancelled ones repeated at the end."""
    words: Ints
    ts: dict[int, Ints]
    rows: dict[int, Ints]
    n: dict[int, Ints]


class Market:
    """The market of one seed.

    Args:
        rate: option prints a second; None for the profile's own.
        hot_share: share of parent orders that go to SPY on top of its usual attention.
    """

    def __init__(
        self, seed: int, options_profile: str, equities_profile: str, start_ts: int, rate: float | None = None, hot_share: float = 0.0
    ) -> None:
        profile, dice = PROFILES[options_profile], Dice(seed)
        self.rate = profile.rate if rate is None else rate
        self.start_ts = start_ts
        self.description: dict[str, int | float | str] = {
            "generator": VERSION, "seed": seed, "options_profile": options_profile, "equities_profile": equities_profile,
            "start_ts": start_ts, "rate": self.rate, "hot_share": hot_share,
        }  # fmt: skip
        paths = Paths(dice)
        slots_per_tick = self.rate / prints_per_run(profile)
        self._dice = dice
        self._schedule = Schedule(dice, profile.runs, slots_per_tick)
        self._options = OptionFlow(dice, Orders(dice, paths, profile, self._schedule, start_ts, hot_share), profile)
        self._equities = EquityFlow(dice, paths, PROFILES[equities_profile].equities, start_ts, self.rate / profile.rate)
        self._scenarios = pl.Series([scenario.name for scenario in profile.scenarios])
        self._stride = 10 ** math.ceil(math.log10(self._most_events(profile)))
        self._prefixes = {
            kind: f"synthetic-{seed}-{options_profile if kind in (OPTION_QUOTE, OPTION_PRINT) else equities_profile}-{word}-"
            for kind, word in KINDS.items()
        }

    def _most_events(self, profile: Profile) -> int:
        """Return a bound on the events of a tick: numbers leave room for that many."""
        slots = math.ceil(self._schedule.slots_per_tick) + _MARGIN_SLOTS
        prints = max(*(s.prints[1] for s in profile.scenarios), *(len(legs) for legs in PACKAGES.values()))
        with_quotes, underlying_quote, cancels = 2 * prints, 1, 1 + CANCEL_LAG_TICKS
        return slots * (with_quotes + underlying_quote + cancels) + 2 * self._equities.most_per_tick

    @property
    def events_per_tick(self) -> float:
        """Expected number of events of a tick, of all kinds."""
        underlying_quotes = self._schedule.slots_per_tick
        return 2 * self.rate + underlying_quotes + 2 * self._equities.most_per_tick

    def ticks(self, first: int, count: int) -> Tape:
        """Return the events of ticks `first` to `first + count - 1`, in feed order."""
        happened = self._events(first, count)
        ids = frames.contract_ids(happened.flow.legs)
        event = {kind: frames.events(happened.n[kind], happened.ts[kind], self._prefixes[kind]) for kind in KINDS}
        rows = happened.rows
        prints = happened.flow.prints
        option_rows = happened.print_rows[rows[OPTION_PRINT]]
        return Tape(
            from_ts=self.start_ts + first * TICK_MS,
            upto_ts=self.start_ts + (first + count) * TICK_MS - 1,
            option_trades=frames.option_trades(event[OPTION_PRINT], ids, prints, option_rows, happened.words[rows[OPTION_PRINT]]),
            option_quotes=frames.option_quotes(event[OPTION_QUOTE], ids, prints, rows[OPTION_QUOTE]),
            equity_trades=frames.equity_trades(event[EQUITY_PRINT], happened.equity_prints, rows[EQUITY_PRINT]),
            equity_quotes=frames.equity_quotes(event[EQUITY_QUOTE], happened.equity_quotes, rows[EQUITY_QUOTE]),
        )

    def truth(self, first: int, count: int) -> pl.DataFrame:
        """Return what really happened behind each option print of these ticks.

        `parent_id` names the run of a parent order, `burst` the order it repeats; `aggressor` and `customer` are 1 for
        a buyer and -1 for a seller; a cancel repeats those of the print that it takes back.
        """
        happened = self._events(first, count)
        flow, number = happened.flow, happened.rows[OPTION_PRINT]
        row = happened.print_rows[number]
        run = flow.prints.run[row]
        ids = pl.Series(happened.n[OPTION_PRINT]).cast(pl.String)
        return pl.select(
            n=pl.Series(happened.n[OPTION_PRINT]),
            trace_id=pl.concat_str(pl.lit(self._prefixes[OPTION_PRINT]), ids),
            scenario=self._scenarios.gather(flow.runs.scenario[run]),
            parent_id=pl.concat_str(pl.lit("run-"), pl.Series(flow.runs.slot[run]).cast(pl.String)),
            burst=pl.Series(flow.runs.burst[run]),
            aggressor=pl.Series(flow.prints.aggressor[row]),
            customer=pl.Series(flow.prints.customer[row]),
            cancel=pl.Series(happened.words[number] == _CANCEL),
        )

    def _events(self, first: int, count: int) -> _Events:
        begin, end = (self.start_ts + tick * TICK_MS for tick in (first, first + count))
        flow = self._options.of(self._slots(first, count))
        fresh = np.flatnonzero(flow.prints.ts >= begin)
        shown = np.flatnonzero((flow.cancel_ts >= begin) & (flow.cancel_ts < end))
        print_rows = np.concatenate((fresh, flow.cancelled[shown]))
        words = np.concatenate((flow.prints.word[fresh], np.full(len(shown), _CANCEL, dtype=np.int64)))
        equity_prints, equity_quotes = self._equities.events(first, first + count)
        run = np.flatnonzero(flow.runs.ts >= begin)
        cut = Cut(self._dice.roll(Stream.UNDERLYING, flow.runs.slot[run]))
        underlyings = self._equities.quotes(flow.runs.ts[run] - UNDERLYING_LEAD_MS, flow.runs.symbol[run], cut)
        equity_quotes = joined(equity_quotes, underlyings)
        ts = {
            EQUITY_QUOTE: equity_quotes.ts,
            OPTION_QUOTE: flow.prints.ts[fresh] - OPTION_QUOTE_LEAD_MS,
            EQUITY_PRINT: equity_prints.ts,
            OPTION_PRINT: np.concatenate((flow.prints.ts[fresh], flow.cancel_ts[shown])),
        }
        rows, n = self._numbered(ts)
        ts = {kind: ts[kind][rows[kind]] for kind in KINDS}
        rows[OPTION_QUOTE] = fresh[rows[OPTION_QUOTE]]
        return _Events(flow, equity_prints, equity_quotes, print_rows, words, ts, rows, n)

    def _slots(self, first: int, count: int) -> Slots:
        """Return the slots of these ticks, after those of earlier ticks whose cancels can fall into them."""
        earlier = self._schedule.between(first - CANCEL_LAG_TICKS, first)
        keep = self._options.cancels(earlier)
        earlier = Slots(earlier.slot[keep], earlier.burst[keep], earlier.first_slot[keep])
        return joined(earlier, self._schedule.between(first, first + count))

    def _numbered(self, ts: dict[int, Ints]) -> tuple[dict[int, Ints], dict[int, Ints]]:
        """Order all events by time, kind (quotes first) and place; number them within their tick; return both by kind."""
        kinds = np.concatenate([np.full(len(ts[kind]), kind, dtype=np.int64) for kind in KINDS])
        elapsed = np.concatenate([ts[kind] for kind in KINDS]) - self.start_ts
        order = np.argsort(elapsed * len(KINDS) + kinds, kind="stable")
        tick = elapsed[order] // TICK_MS
        rank = np.arange(len(order), dtype=np.int64) - np.searchsorted(tick, tick, side="left")
        n = tick * self._stride + rank
        ordered = kinds[order]
        starts = np.cumsum([0, *(len(ts[kind]) for kind in KINDS)])
        at = {kind: ordered == kind for kind in KINDS}
        return {kind: order[at[kind]] - starts[kind] for kind in KINDS}, {kind: n[at[kind]] for kind in KINDS}


def prints_per_run(profile: Profile) -> float:
    """Return the expected number of option prints of a run, its cancel included."""
    weights = sum(s.weight for s in profile.scenarios)
    legs = sum(len(package) for package in PACKAGES.values()) / len(PACKAGES)
    plain = sum(s.weight * (legs if s.package else sum(s.prints) / 2 + 1 / CANCEL_ONE_IN_RUNS) for s in profile.scenarios)
    return plain / weights
