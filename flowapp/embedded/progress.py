"""Progress of a download: a bar on a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO

MEBIBYTE = 1 << 20


class Progress(Protocol):
    """Told what is fetched; `advance` takes bytes, negative when they must be fetched again."""

    def start(self, title: str, total_bytes: int) -> None: ...

    def advance(self, count_bytes: int) -> None: ...

    def note(self, text: str) -> None: ...

    def finish(self, complete: bool) -> None: ...


class LineProgress:
    """Plain lines for logs and pipes."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.title, self.total_bytes, self.done_bytes, self.shown_tenth = "", 0, 0, 0

    def start(self, title: str, total_bytes: int) -> None:
        self.title, self.total_bytes, self.done_bytes, self.shown_tenth = title, total_bytes, 0, 0
        self.note(f"downloading {title} ({total_bytes / MEBIBYTE:.0f} MB)")

    def advance(self, count_bytes: int) -> None:
        self.done_bytes += count_bytes
        tenth = 10 * self.done_bytes // max(self.total_bytes, 1)
        if tenth > self.shown_tenth:
            self.shown_tenth = tenth
            self.note(f"  {self.title}: {tenth * 10} %")

    def note(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def finish(self, complete: bool) -> None:
        self.note(f"  {self.title}: {'ready' if complete else 'not complete'}")


class BarProgress:
    """A bar with rate and time left."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self.bar: Any = Bar(*columns, console=Console(file=out))
        self.task: Any = None

    def start(self, title: str, total_bytes: int) -> None:
        self.bar.start()
        self.task = self.bar.add_task(title, total=total_bytes)

    def advance(self, count_bytes: int) -> None:
        self.bar.advance(self.task, count_bytes)

    def note(self, text: str) -> None:
        self.bar.console.print(text, highlight=False)

    def finish(self, complete: bool) -> None:
        self.bar.stop()


def for_stream(out: TextIO | None = None) -> Progress:
    """Return what suits the stream (standard error when None)."""
    out = out or sys.stderr
    return BarProgress(out) if out.isatty() else LineProgress(out)
