"""How fast event time passes: the only place where the edge waits."""

from __future__ import annotations

import time
from typing import Protocol

from flowapp.edge.order import FOREVER

MS_PER_SECOND = 1000


class Clock(Protocol):
    """The wall clock."""

    def now_ms(self) -> int:
        """Return the time, ms UTC."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class WallClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class Pacer:
    """Event time against wall time, from the first event that is not in the log yet.

    Args:
        speed: event time passed in a unit of wall time; 0 for no limit.
    """

    def __init__(self, speed: float, clock: Clock) -> None:
        self._speed, self._clock = speed, clock
        self._anchor: tuple[float, int] | None = None

    def due_ts(self, next_event_ts: int, *, behind: bool) -> int:
        """Return up to which event time events may leave now; while behind its log, the edge does not wait.

        Args:
            next_event_ts: effective time of the next event held.
        """
        if not self._speed or behind:
            return FOREVER
        if self._anchor is None:
            if next_event_ts == FOREVER:
                return FOREVER
            self._anchor = (self._seconds(), next_event_ts)
        wall, event = self._anchor
        return event + int((self._seconds() - wall) * self._speed * MS_PER_SECOND)

    def seconds_until(self, event_ts: int) -> float:
        """Return how long it takes until an event is due."""
        if self._anchor is None or not self._speed:
            return 0.0
        wall, event = self._anchor
        return max(0.0, (event_ts - event) / MS_PER_SECOND / self._speed - (self._seconds() - wall))

    def _seconds(self) -> float:
        return self._clock.now_ms() / MS_PER_SECOND
