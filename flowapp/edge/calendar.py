"""The exchanges' calendar: trading days, early closes, sessions by class of product, moments of expiration.

Holidays follow NYSE Rule 7.2 (Cboe and the other option exchanges close on the same days); days outside any rule are
in the tables below, maintained from the exchanges' announcements since 2012. All local times are New York's.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]

NEW_YORK = ZoneInfo("America/New_York")
EPOCH = date(1970, 1, 1)
HOUR_MS, DAY_MS = 3_600_000, 86_400_000

# Hurricane Sandy; the funerals of G. H. W. Bush and J. Carter.
EXTRA_CLOSURES = frozenset({date(2012, 10, 29), date(2012, 10, 30), date(2018, 12, 5), date(2025, 1, 9)})

# Classes of product by their hours.
STOCK, STOCK_OPTION, LATE_ETF_OPTION, INDEX_OPTION, GLOBAL_INDEX_OPTION = range(5)
SESSIONS = pl.Series(["regular", "pre", "post", "gth", "curb", "closed"])
REGULAR, PRE, POST, GTH, CURB, CLOSED = range(6)

# Minutes after midnight.
PRE_OPEN, OPEN, CLOSE, LATE_CLOSE, POST_CLOSE, EARLY_CLOSE, EARLY_POST_CLOSE = 240, 570, 960, 975, 1200, 780, 1020
CURB_CLOSE = 1020
GTH_OPEN_AT_NIGHT, GTH_OPEN_2015, GTH_CLOSE_2015, GTH_CLOSE = 1215, 180, 555, 565
GTH_SINCE, GTH_AT_NIGHT_SINCE, CURB_SINCE = date(2015, 3, 2), date(2021, 11, 22), date(2022, 4, 25)


def _nth(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _observed(day: date) -> date:
    return day + timedelta(days={5: -1, 6: 1}.get(day.weekday(), 0))


def easter(year: int) -> date:
    """Return Easter Sunday (Meeus, Jones, Butcher)."""
    a, b, c = year % 19, year // 100, year % 100
    h = (19 * a + b - b // 4 - (b - (b + 8) // 25 + 1) // 3 + 15) % 30
    k = (32 + 2 * (b % 4) + 2 * (c // 4) - h - c % 4) % 7
    m = (a + 11 * h + 22 * k) // 451
    month, day = divmod(h + k - 7 * m + 114, 31)
    return date(year, month, day + 1)


@cache
def holidays(year: int) -> frozenset[date]:
    """Return the weekdays of a year on which the exchanges are closed."""
    new_year, memorial = date(year, 1, 1), date(year, 5, 31)
    days = {
        # A New Year's Day on a Saturday is not made up for on the last day of the old year.
        new_year + timedelta(days=new_year.weekday() == 6),
        _nth(year, 1, 0, 3),
        _nth(year, 2, 0, 3),
        easter(year) - timedelta(days=2),
        memorial - timedelta(days=memorial.weekday()),
        _observed(date(year, 7, 4)),
        _nth(year, 9, 0, 1),
        _nth(year, 11, 3, 4),
        _observed(date(year, 12, 25)),
    }
    if year >= 2022:
        days.add(_observed(date(year, 6, 19)))
    days |= {day for day in EXTRA_CLOSURES if day.year == year}
    return frozenset(day for day in days if day.weekday() < 5)


@cache
def is_trading_day(day: date) -> bool:
    """Whether the exchanges open at all on this day."""
    return day.weekday() < 5 and day not in holidays(day.year)


@cache
def is_early_close(day: date) -> bool:
    """Whether this trading day ends at 13:00: the day after Thanksgiving, 3 July and 24 December."""
    if not is_trading_day(day):
        return False
    if (day.month, day.day) in ((7, 3), (12, 24)):
        return True
    return day == _nth(day.year, 11, 3, 4) + timedelta(days=1)


@cache
def next_trading_day(day: date) -> date:
    """Return the first trading day at or after a day."""
    while not is_trading_day(day):
        day += timedelta(days=1)
    return day


@cache
def last_trading_day(day: date) -> date:
    """Return the last trading day at or before a day."""
    while not is_trading_day(day):
        day -= timedelta(days=1)
    return day


def local_ms(day: date, minutes: int) -> int:
    """Return the time, ms UTC, of minutes after midnight in New York."""
    moment = datetime(day.year, day.month, day.day, minutes // 60, minutes % 60, tzinfo=NEW_YORK)
    return int(moment.timestamp()) * 1000


def expires_at(expiry: date, settlement: str) -> int:
    """Return the moment of expiration, ms UTC: the opening of the last trading day for AM, its close for PM settlement.

    Monthly options listed before February 2015 bear the Saturday after their last trading day.
    """
    day = last_trading_day(expiry)
    if settlement == "AM":
        return local_ms(day, OPEN)
    return local_ms(day, EARLY_CLOSE if is_early_close(day) else CLOSE)


@cache
def _offset_ms(utc_hour: int) -> int:
    # New York's clock changes on full hours of UTC.
    moment = datetime.fromtimestamp(utc_hour * 3600, UTC).astimezone(NEW_YORK)
    offset = moment.utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) * 1000


@cache
def _day_facts(day_number: int) -> tuple[bool, bool, bool, int, str, str]:
    """Return of a local day: trading, early close, tomorrow trades, rules of its global hours, its trade date, that of its night."""
    day = EPOCH + timedelta(days=day_number)
    tomorrow = day + timedelta(days=1)
    rules = int(day >= GTH_SINCE) + int(tomorrow >= GTH_AT_NIGHT_SINCE) + int(day >= CURB_SINCE)
    own, night = next_trading_day(day).isoformat(), next_trading_day(tomorrow).isoformat()
    return is_trading_day(day), is_early_close(day), is_trading_day(tomorrow), rules, own, night


def sessions(ts_ms: Ints, hours: Ints) -> tuple[pl.Series, pl.Series]:
    """Return (trade date as ISO text, session) of each time, given its product's class of hours.

    What happens on a day without trading belongs to the next trading day; so does the evening of the global hours.
    """
    if ts_ms.size == 0:
        return SESSIONS.clear(), SESSIONS.clear()
    utc_hours, hour_at = np.unique(ts_ms // HOUR_MS, return_inverse=True)
    local = ts_ms + np.array([_offset_ms(int(hour)) for hour in utc_hours], np.int64)[hour_at]
    days, day_at = np.unique(local // DAY_MS, return_inverse=True)
    facts = [_day_facts(int(day)) for day in days]
    trading, early, tomorrow = (np.array([fact[i] for fact in facts], bool)[day_at] for i in range(3))
    rules = np.array([fact[3] for fact in facts], np.int64)[day_at]
    minute = local % DAY_MS // 60_000
    night = (hours == GLOBAL_INDEX_OPTION) & tomorrow & (rules >= 2) & (minute >= GTH_OPEN_AT_NIGHT)
    codes = _session_codes(minute, hours, trading, early, rules)
    codes[night] = GTH
    dates = pl.Series([fact[4] for fact in facts] + [fact[5] for fact in facts])
    return dates.gather(day_at + night * len(facts)), SESSIONS.gather(codes)


def _session_codes(minute: Ints, hours: Ints, trading: npt.NDArray[np.bool_], early: npt.NDArray[np.bool_], rules: Ints) -> Ints:
    codes = np.full(minute.size, CLOSED, np.int64)
    late = (hours >= LATE_ETF_OPTION).astype(np.int64) * (LATE_CLOSE - CLOSE)
    close = np.where(early, EARLY_CLOSE, CLOSE) + late
    codes[trading & (minute >= OPEN) & (minute < close)] = REGULAR
    stock = trading & (hours == STOCK)
    codes[stock & (minute >= PRE_OPEN) & (minute < OPEN)] = PRE
    codes[stock & (minute >= close) & (minute < np.where(early, EARLY_POST_CLOSE, POST_CLOSE))] = POST
    index = trading & (hours == GLOBAL_INDEX_OPTION)
    at_night = rules >= 2
    gth = (minute >= np.where(at_night, 0, GTH_OPEN_2015)) & (minute < np.where(at_night, GTH_CLOSE, GTH_CLOSE_2015))
    codes[index & (rules >= 1) & gth] = GTH
    codes[index & (rules >= 3) & ~early & (minute >= LATE_CLOSE) & (minute < CURB_CLOSE)] = CURB
    return codes
