"""Trading days and listed expiries of the synthetic market."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from flowapp.edge import calendar
from flowapp.simulator.calendar import DAILY_CLASS, EXPIRY_DAYS, WEEKLY_CLASS, Sessions, holidays, is_trading_day


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def day(number: int) -> date:
    return date(1970, 1, 1) + timedelta(int(number))


def expiries(text: str, listing: int) -> list[str]:
    ts = moment(text)
    sessions = Sessions.covering(ts, ts)
    return [str(day(number)) for number in sessions.expiries[sessions.index(np.array([ts]))[0], listing, :, 0]]


def test_holidays_are_those_the_exchange_published() -> None:
    published = ["2025-01-01", "2025-01-09", "2025-01-20", "2025-02-17", "2025-04-18", "2025-05-26", "2025-06-19", "2025-07-04", "2025-09-01", "2025-11-27", "2025-12-25"]  # fmt: skip # noqa: E501
    assert sorted(map(str, holidays(2025))) == published
    published = [
        "2022-01-17",
        "2022-02-21",
        "2022-04-15",
        "2022-05-30",
        "2022-06-20",
        "2022-07-04",
        "2022-09-05",
        "2022-11-24",
        "2022-12-26",
    ]
    assert sorted(map(str, holidays(2022))) == published
    assert date(2013, 6, 19) not in holidays(2013)


def test_the_calendar_is_the_edges() -> None:
    for year in range(2000, 2045):
        assert holidays(year) == calendar.holidays(year)


def test_weekends_are_no_trading_days() -> None:
    assert [is_trading_day(date(2026, 3, number)) for number in (6, 7, 8, 9)] == [True, False, False, True]


def test_a_name_lists_fridays_and_beyond_six_weeks_monthly_ones() -> None:
    listed = expiries("2026-03-04T15:00", WEEKLY_CLASS)
    assert listed == ["2026-03-06", "2026-03-06", "2026-03-13", "2026-03-20", "2026-04-02", "2026-05-15", "2026-05-15", "2026-06-18"]
    assert len(listed) == len(EXPIRY_DAYS)


def test_spy_lists_every_trading_day() -> None:
    assert expiries("2026-03-04T15:00", DAILY_CLASS)[:5] == ["2026-03-04", "2026-03-05", "2026-03-11", "2026-03-18", "2026-04-01"]


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("2026-03-06T20:58", "2026-03-06"),  # Friday, before the close
        ("2026-03-06T21:00", "2026-03-09"),  # after it
        ("2026-03-07T12:00", "2026-03-09"),  # Saturday
        ("2026-03-10T19:58", "2026-03-10"),  # Tuesday in summer time
        ("2026-03-10T20:00", "2026-03-11"),
        ("2026-04-02T20:30", "2026-04-06"),  # the day before Good Friday
    ],
)
def test_a_trade_date_ends_with_its_close(text: str, nearest: str) -> None:
    assert expiries(text, DAILY_CLASS)[0] == nearest


def test_every_expiry_of_three_years_is_a_trading_day_and_the_next_one_is_later() -> None:
    first = moment("2024-01-01T12:00")
    sessions = Sessions.covering(first, first + 3 * 365 * 86_400_000)
    assert len(sessions.opens_ms) > 750
    assert all(is_trading_day(day(number)) for number in np.unique(sessions.expiries))
    assert (sessions.expiries[..., 1] > sessions.expiries[..., 0]).all()
    assert (np.diff(sessions.expiries[..., 0], axis=-1) >= 0).all()


def test_the_middle_of_a_session_is_calm_and_its_ends_and_nights_are_not() -> None:
    times = np.array([moment(f"2026-03-04T{clock}") for clock in ("03:00", "14:35", "15:00", "20:40", "20:50", "23:00")])
    assert Sessions.covering(int(times[0]), int(times[-1])).calm(times, 900_000).tolist() == [False, False, True, True, False, False]
