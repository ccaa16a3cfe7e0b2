"""The exchanges' calendar against days that are known."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from flowapp.edge import calendar
from flowapp.edge.contracts import attributes


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("America/New_York")).timestamp() * 1000)


def at(text: str, hours: int) -> tuple[str, str]:
    dates, found = calendar.sessions(np.array([ms(text)], np.int64), np.array([hours], np.int64))
    return str(dates[0]), str(found[0])


def test_holidays_of_known_years() -> None:
    known = {
        2012: "01-02 01-16 02-20 04-06 05-28 07-04 09-03 10-29 10-30 11-22 12-25",
        2013: "01-01 01-21 02-18 03-29 05-27 07-04 09-02 11-28 12-25",
        2021: "01-01 01-18 02-15 04-02 05-31 07-05 09-06 11-25 12-24",
        2022: "01-17 02-21 04-15 05-30 06-20 07-04 09-05 11-24 12-26",
        2025: "01-01 01-09 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
        2030: "01-01 01-21 02-18 04-19 05-27 06-19 07-04 09-02 11-28 12-25",
    }
    for year, days in known.items():
        assert sorted(day.strftime("%m-%d") for day in calendar.holidays(year)) == days.split()


def test_early_closes_of_known_years() -> None:
    def early(year: int) -> list[str]:
        days = (date.fromordinal(date(year, 1, 1).toordinal() + i) for i in range(365))
        return [day.strftime("%m-%d") for day in days if calendar.is_early_close(day)]

    assert early(2013) == ["07-03", "11-29", "12-24"]
    assert early(2020) == ["11-27", "12-24"]
    assert early(2021) == ["11-26"]
    assert early(2024) == ["07-03", "11-29", "12-24"]


@pytest.mark.parametrize(
    ("text", "hours", "session"),
    [
        ("2024-06-14T09:29:59", calendar.STOCK_OPTION, "closed"),
        ("2024-06-14T09:30", calendar.STOCK_OPTION, "regular"),
        ("2024-06-14T15:59:59.999", calendar.STOCK_OPTION, "regular"),
        ("2024-06-14T16:00", calendar.STOCK_OPTION, "closed"),
        ("2024-06-14T16:14", calendar.LATE_ETF_OPTION, "regular"),
        ("2024-06-14T16:14", calendar.INDEX_OPTION, "regular"),
        ("2024-06-14T16:15", calendar.INDEX_OPTION, "closed"),
        ("2024-06-14T16:30", calendar.GLOBAL_INDEX_OPTION, "curb"),
        ("2024-06-14T03:30", calendar.GLOBAL_INDEX_OPTION, "gth"),
        ("2024-06-14T03:30", calendar.INDEX_OPTION, "closed"),
        ("2024-06-14T04:00", calendar.STOCK, "pre"),
        ("2024-06-14T16:00", calendar.STOCK, "post"),
        ("2024-06-14T20:00", calendar.STOCK, "closed"),
        ("2024-07-03T13:00", calendar.STOCK_OPTION, "closed"),
        ("2024-07-03T13:14", calendar.LATE_ETF_OPTION, "regular"),
        ("2024-07-03T13:00", calendar.STOCK, "post"),
        ("2024-07-04T10:00", calendar.STOCK, "closed"),
        ("2013-10-08T10:00", calendar.STOCK, "regular"),
        ("2013-10-08T03:30", calendar.GLOBAL_INDEX_OPTION, "closed"),
        ("2030-03-11T09:30", calendar.STOCK, "regular"),
    ],
)
def test_sessions_by_class(text: str, hours: int, session: str) -> None:
    assert at(text, hours)[1] == session


def test_the_night_belongs_to_the_next_trading_day() -> None:
    assert at("2024-06-16T20:30", calendar.GLOBAL_INDEX_OPTION) == ("2024-06-17", "gth")
    assert at("2024-06-14T20:30", calendar.GLOBAL_INDEX_OPTION) == ("2024-06-14", "closed")
    assert at("2024-06-18T20:30", calendar.GLOBAL_INDEX_OPTION)[1] == "closed"  # the next day is Juneteenth
    assert at("2024-06-15T12:00", calendar.STOCK) == ("2024-06-17", "closed")


def test_times_on_both_sides_of_a_clock_change_get_their_own_offset() -> None:
    times = np.array([ms("2024-03-08T09:30"), ms("2024-03-11T09:30"), ms("2024-11-01T09:30"), ms("2024-11-04T09:30")], np.int64)
    dates, found = calendar.sessions(times, np.full(4, calendar.STOCK, np.int64))
    assert list(found) == ["regular"] * 4
    assert list(dates) == ["2024-03-08", "2024-03-11", "2024-11-01", "2024-11-04"]


def test_expiration_follows_settlement_early_closes_and_old_saturdays() -> None:
    assert calendar.expires_at(date(2024, 6, 21), "PM") == ms("2024-06-21T16:00")
    assert calendar.expires_at(date(2024, 6, 21), "AM") == ms("2024-06-21T09:30")
    assert calendar.expires_at(date(2024, 11, 29), "PM") == ms("2024-11-29T13:00")
    assert calendar.expires_at(date(2013, 10, 19), "PM") == ms("2013-10-18T16:00")
    assert calendar.expires_at(date(2025, 4, 18), "PM") == ms("2025-04-17T16:00")  # Good Friday


@pytest.mark.parametrize(
    ("root", "expiry", "expected"),
    [
        ("SPXW", "2024-06-21", ("SPX", 100, False, "PM", calendar.GLOBAL_INDEX_OPTION)),
        ("SPX", "2024-06-21", ("SPX", 100, False, "AM", calendar.GLOBAL_INDEX_OPTION)),
        ("NDXP", "2024-06-21", ("NDX", 100, False, "PM", calendar.INDEX_OPTION)),
        ("RUTW", "2024-06-21", ("RUT", 100, False, "PM", calendar.INDEX_OPTION)),
        ("VIXW", "2024-06-20", ("VIX", 100, False, "AM", calendar.GLOBAL_INDEX_OPTION)),
        ("XSP", "2024-06-20", ("XSP", 100, False, "PM", calendar.GLOBAL_INDEX_OPTION)),
        ("SPY", "2024-06-21", ("SPY", 100, False, "PM", calendar.LATE_ETF_OPTION)),
        ("AAPL", "2024-06-21", ("AAPL", 100, False, "PM", calendar.STOCK_OPTION)),
        ("AAPL1", "2024-06-21", ("AAPL", None, True, "PM", calendar.STOCK_OPTION)),
        ("AAPL7", "2013-06-22", ("AAPL", 10, False, "PM", calendar.STOCK_OPTION)),
        ("AAPL7", "2024-06-21", ("AAPL", None, True, "PM", calendar.STOCK_OPTION)),
        ("2SPX", "2024-06-21", ("SPX", 100, False, "AM", calendar.GLOBAL_INDEX_OPTION)),
        ("BRKB", "2024-06-21", ("BRK.B", 100, False, "PM", calendar.STOCK_OPTION)),
    ],
)
def test_what_a_root_says(root: str, expiry: str, expected: tuple[object, ...]) -> None:
    found = attributes(root, expiry)
    assert (found.underlying_id, found.multiplier, found.adjusted, found.settlement, found.hours) == expected
    assert found.expires_at is not None


def test_a_contract_that_does_not_parse_has_no_attributes() -> None:
    assert attributes("NONSENSE", None) == ("NONSENSE", None, False, None, None, calendar.STOCK_OPTION)
    assert attributes("SPY", "2024-13-77").expires_at is None
