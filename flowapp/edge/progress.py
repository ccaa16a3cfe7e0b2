"""Progress of an edge: a bar in a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from flowapp.edge.ingest import Counts

LINE_SECONDS = 5.0
DRAW_SECONDS = 0.2

log = logging.getLogger("flowapp.edge")


class Reporter:
    """Told the counts after every batch; shows them now or later, and the last ones when it ends."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._counts = Counts()

    def __call__(self, counts: Counts) -> None:
        self._counts = counts
        self.show(counts)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self._counts)

    def show(self, counts: Counts) -> None:
        """Show them if it is time to."""

    def end(self, counts: Counts) -> None:
        """Show the last ones."""


class Lines(Reporter):
    """A log line every few seconds."""

    def __init__(self, seconds: float = LINE_SECONDS) -> None:
        super().__init__()
        self._seconds = seconds
        self._last = (self._began, 0)

    def show(self, counts: Counts) -> None:
        if time.monotonic() - self._last[0] >= self._seconds:
            self._write(counts, "reading")

    def end(self, counts: Counts) -> None:
        self._last = (self._began, 0)
        self._write(counts, "read")

    def _write(self, counts: Counts, word: str) -> None:
        now = time.monotonic()
        rate = (counts.events - self._last[1]) / max(now - self._last[0], 1e-3)
        self._last = (now, counts.events)
        context: dict[str, float] = {
            "events": counts.events,
            "events_per_second": round(rate),
            "refused": counts.refused,
            "newest_ts": counts.newest_ts,
        }
        text = f"{word} {counts.events:,} events, {rate:,.0f}/s, up to {_clock(counts.newest_ts)}"
        if counts.progress:
            left = (now - self._began) * (1 - counts.progress) / counts.progress
            context |= {"share": round(counts.progress, 4), "seconds_left": round(left)}
            text += f", {counts.progress:.0%}, {left:,.0f} s left"
        if counts.refused:
            text += f", {counts.refused:,} refused"
        log.info(text, extra={"context": context})


class Bar(Reporter):
    """A bar with rate and time left."""

    def __init__(self, name: str) -> None:
        super().__init__()
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        ]  # fmt: skip
        self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=5)
        self._task = self._bar.add_task(name, total=1.0, text="")
        self._drawn = 0.0
        self._bar.start()

    def show(self, counts: Counts) -> None:
        now = time.monotonic()
        if now - self._drawn >= DRAW_SECONDS:
            self._drawn = now
            self._draw(counts)

    def end(self, counts: Counts) -> None:
        self._draw(counts)
        self._bar.stop()

    def _draw(self, counts: Counts) -> None:
        rate = counts.events / max(time.monotonic() - self._began, 1e-3)
        text = f"{counts.events:,} events, {rate:,.0f}/s, {_clock(counts.newest_ts)}"
        if counts.refused:
            text += f", {counts.refused:,} refused"
        self._bar.update(self._task, completed=counts.progress, text=text)


def reporter(name: str, *, has_end: bool) -> Reporter:
    """Return a bar for a file that is read in a terminal, log lines otherwise."""
    return Bar(name) if has_end and sys.stderr.isatty() else Lines()


def _clock(ts: int) -> str:
    if ts <= 0:
        return "the beginning"
    return datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
