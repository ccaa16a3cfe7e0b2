"""Jobs on their way through the stages of a runner, each stage a thread of its own."""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Mode(enum.Enum):
    """What becomes of jobs: they are worked on, or only what is folded is still sent, or they are dropped."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Line:
    """Counts jobs from the first stage to the last, so that one can wait until none is left."""

    def __init__(self) -> None:
        self.wake = threading.Condition()
        self.mode = Mode.CLOSED
        self._jobs = 0

    @property
    def is_open(self) -> bool:
        """Whether new jobs are taken."""
        return self.mode is Mode.OPEN

    def begin(self) -> bool:
        """Count a new job, if the line is open."""
        with self.wake:
            self._jobs += self.is_open
            return self.is_open

    def done(self) -> None:
        """Count a job that has left the last stage, or was dropped."""
        with self.wake:
            self._jobs -= 1
            self.wake.notify_all()

    def switch(self, mode: Mode) -> None:
        """Change the mode; when that ends the open one, wait until no job is left."""
        with self.wake:
            self.mode = mode
            self.wake.notify_all()
            if mode is not Mode.OPEN:
                self.wake.wait_for(lambda: self._jobs == 0)

    @property
    def idle(self) -> bool:
        """Whether no job is on its way."""
        return self._jobs == 0


class Belt(Generic[T]):
    """A short queue between two stages of a line."""

    def __init__(self, line: Line, size: int = 1) -> None:
        self._wake = line.wake
        self._size = size
        self._jobs: deque[T] = deque()

    def put(self, job: T) -> None:
        """Hand a job on; waits while the next stage is behind."""
        with self._wake:
            self._wake.wait_for(lambda: len(self._jobs) < self._size)
            self._jobs.append(job)
            self._wake.notify_all()

    def get(self, until: float | None = None) -> T | None:
        """Take the next job; None when there is none by `until` (monotonic seconds)."""
        with self._wake:
            timeout = None if until is None else max(0.0, until - time.monotonic())
            if not self._wake.wait_for(lambda: bool(self._jobs), timeout):
                return None
            job = self._jobs.popleft()
            self._wake.notify_all()
            return job
