"""Trading days of the US exchanges and the expiries they list.

The generator needs days that are plausible for any year, so they follow from rules (holidays of the New York Stock
Exchange) and the few special closings since 2000; early closes are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from flowapp.simulator.dice import Flags, Ints

NEW_YORK = ZoneInfo("America/New_York")
OPEN, CLOSE = time(9, 30), time(16, 0)
MONDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = 0, 3, 4, 5, 6
FIRST_JUNETEENTH, FIRST_KING_DAY = 2022, 1998
SPECIAL_CLOSINGS = frozenset({date(2012, 10, 29), date(2012, 10, 30), date(2018, 12, 5), date(2025, 1, 9)})
MS_PER_SECOND, DAY_MS, WEEK_DAYS = 1000, 86_400_000, 7
LAST_TRADE_BEFORE_CLOSE_MS = 60_000
THIRD_WEEK_FIRST_DAY = 15

# Days from the trade date to the wished expiry (reference 17.3) and their weights; from MONTHLY_FROM_DAYS on only monthly ones are listed.
EXPIRY_DAYS = (0, 1, 7, 14, 28, 45, 60, 90)
EXPIRY_WEIGHTS = (12, 8, 10, 7, 7, 3, 2, 2)
MONTHLY_FROM_DAYS = 45
WEEKLY_CLASS, DAILY_CLASS = 0, 1
CHOSEN, NEXT = 0, 1


def _observed(day: date) -> date:
    return day + timedelta({SATURDAY: -1, SUNDAY: 1}.get(day.weekday(), 0))


def _nth(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta((weekday - first.weekday()) % WEEK_DAYS + WEEK_DAYS * (nth - 1))


def _easter(year: int) -> date:
    """Return Easter Sunday (Meeus, Jones, Butcher: Gregorian algorithm)."""
    a, b, c = year % 19, year // 100, year % 100
    h = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    el = (32 + 2 * (b % 4) + 2 * (c // 4) - h - c % 4) % 7
    m = (a + 11 * h + 22 * el) // 451
    month, day = divmod(h + el - 7 * m + 114, 31)
    return date(year, month, day + 1)


@lru_cache(maxsize=64)
def holidays(year: int) -> frozenset[date]:
    """Return the exchange holidays of a year."""
    last_monday_of_may = _nth(year, 6, MONDAY, 1) - timedelta(WEEK_DAYS)
    days = {
        _easter(year) - timedelta(2),
        _nth(year, 2, MONDAY, 3),
        last_monday_of_may,
        _observed(date(year, 7, 4)),
        _nth(year, 9, MONDAY, 1),
        _nth(year, 11, THURSDAY, 4),
        _observed(date(year, 12, 25)),
    }
    if date(year, 1, 1).weekday() != SATURDAY:  # a New Year's Day on a Saturday is not made up for
        days.add(_observed(date(year, 1, 1)))
    if year >= FIRST_KING_DAY:
        days.add(_nth(year, 1, MONDAY, 3))
    if year >= FIRST_JUNETEENTH:
        days.add(_observed(date(year, 6, 19)))
    return frozenset(days | {day for day in SPECIAL_CLOSINGS if day.year == year})


def is_trading_day(day: date) -> bool:
    """Tell whether the exchanges are open on a day."""
    return day.weekday() < SATURDAY and day not in holidays(day.year)


def trading_day_from(day: date) -> date:
    """Return the first trading day on or after a day."""
    while not is_trading_day(day):
        day += timedelta(1)
    return day


def _listed_week_end(day: date) -> date:
    """Return the last trading day of a Friday's week."""
    while not is_trading_day(day):
        day -= timedelta(1)
    return day


def _weekly_from(day: date, monthly: bool) -> date:
    """Return the first weekly, or monthly, expiry on or after a day."""
    friday = day + timedelta((FRIDAY - day.weekday()) % WEEK_DAYS)
    while _listed_week_end(friday) < day or (monthly and not THIRD_WEEK_FIRST_DAY <= friday.day < THIRD_WEEK_FIRST_DAY + WEEK_DAYS):
        friday += timedelta(WEEK_DAYS)
    return _listed_week_end(friday)


def _expiry(day: date, daily: bool, days: int) -> date:
    wished = day + timedelta(days)
    return trading_day_from(wished) if daily and days < MONTHLY_FROM_DAYS else _weekly_from(wished, days >= MONTHLY_FROM_DAYS)


@lru_cache(maxsize=256)
def _expiries(day: date) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return for a trade date, by class and wish, the expiry and the next one after it, as days since 1970."""
    table = []
    for daily in (False, True):
        row = []
        for days in EXPIRY_DAYS:
            chosen = _expiry(day, daily, days)
            row.append((_number(chosen), _number(_weekly_from(chosen + timedelta(1), days >= MONTHLY_FROM_DAYS))))
        table.append(tuple(row))
    return tuple(table)


def _number(day: date) -> int:
    return (day - date(1970, 1, 1)).days


@lru_cache(maxsize=256)
def _session_ms(day: date) -> tuple[int, int]:
    bounds = (datetime.combine(day, moment, NEW_YORK) for moment in (OPEN, CLOSE))
    opened, closed = (int(bound.timestamp()) * MS_PER_SECOND for bound in bounds)
    return opened, closed


@dataclass(frozen=True)
class Sessions:
    """The trade dates that a stretch of time touches; a trade date ends with its last trade."""

    opens_ms: Ints
    closes_ms: Ints
    expiries: Ints
    """[trade date, class, wish, chosen or next], days since 1970."""

    @classmethod
    def covering(cls, first_ts: int, last_ts: int) -> Sessions:
        """Find the sessions for times from `first_ts` to `last_ts`, ms UTC."""
        day = trading_day_from(datetime.fromtimestamp(first_ts // MS_PER_SECOND, UTC).astimezone(NEW_YORK).date())
        days = [day]
        while _session_ms(days[-1])[1] - LAST_TRADE_BEFORE_CLOSE_MS <= last_ts:
            days.append(trading_day_from(days[-1] + timedelta(1)))
        bounds = np.array([_session_ms(day) for day in days], dtype=np.int64)
        return cls(bounds[:, 0], bounds[:, 1], np.array([_expiries(day) for day in days], dtype=np.int64))

    def index(self, ts: Ints) -> Ints:
        """Return the position of each time's trade date."""
        return np.searchsorted(self.closes_ms - LAST_TRADE_BEFORE_CLOSE_MS, ts, side="right").astype(np.int64)

    def calm(self, ts: Ints, margin_ms: int) -> Flags:
        """Tell which times lie in a regular session, `margin_ms` from its ends."""
        place = self.index(ts)
        return (ts >= self.opens_ms[place] + margin_ms) & (ts <= self.closes_ms[place] - margin_ms)
