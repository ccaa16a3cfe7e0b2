"""The supervisor: starts parts in order, starts a part again that died, stops all in reverse order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from flowapp.embedded import runfile
from flowapp.embedded.logfile import LogFile
from flowapp.embedded.process import Child, describe_exit
from flowapp.embedded.service import Service, log_path, start
from flowapp.errors import FlowError, StackError
from flowapp.logs import LEVELS, Record, now

POLL_SECONDS = 0.2
STEADY_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
FAILURES_ALLOWED = 8
# A program's exit code for what starting it again does not mend: a wrong setting, another time line.
EXIT_REFUSED = 2
OWN_NAME = "flow"
# From which level on a part's own lines are worth a person's attention; all of them are in its log file.
LEAST_LEVEL = {"broker": "ERROR", "registry": "ERROR", "watch": "INFO"}


class Stopped(Exception):
    """Raised inside a wait when the stack shall stop."""


class Reporter:
    """Writes what happens: every line of ours and the warnings of the parts, short, for a person."""

    def __init__(self, out: TextIO, home: Path) -> None:
        self._out = out
        self._last: dict[str, str] = {}
        self._file = LogFile(log_path(home, OWN_NAME))

    def __call__(self, record: Record) -> None:
        """Show a part's record if it matters and is not what that part said last."""
        if record.severity < LEVELS[LEAST_LEVEL.get(record.service, "WARNING")] or self._last.get(record.service) == record.msg:
            return
        self._last[record.service] = record.msg
        self._show(record)

    def say(self, message: str, level: str = "INFO", **context: object) -> None:
        """Log and show a line of our own."""
        record = Record(level, OWN_NAME, message, now(), dict(context))
        self._file.write(record)
        self._show(record)

    def close(self) -> None:
        """Close the log."""
        self._file.close()

    def _show(self, record: Record) -> None:
        try:
            print(record.to_text(), file=self._out, flush=True)
        except OSError:
            # The terminal is gone, and the parts must still be stopped in order; our log file has the line.
            return


@dataclass
class Part:
    """A service, its present process, and when it is to be started again."""

    service: Service
    scope: str
    finishes: bool = False
    child: Child | None = None
    started: float = 0.0
    failures: int = 0
    due: float | None = None
    finished: bool = False

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name


class Supervisor:
    """Runs parts until told to stop, or until one of them cannot be kept alive."""

    def __init__(self, home: Path, reporter: Reporter, stop: threading.Event | None = None) -> None:
        self.home, self.reporter = home, reporter
        self.stop = stop or threading.Event()
        self.parts: list[Part] = []

    def add(self, service: Service, scope: str, finishes: bool = False) -> None:
        """Start a part and watch over it; with `finishes` exit code 0 is its end and no failure.

        Raises:
            StackError: it does not start.
            Stopped: the stack shall stop.
        """
        part = Part(service, scope, finishes)
        self.parts.append(part)
        self._launch(part)

    def watch(self) -> None:
        """Keep every part alive until told to stop.

        Raises:
            StackError: a part refuses to run, or dies again and again.
        """
        while not self.stop.wait(POLL_SECONDS):
            for part in self.parts:
                if part.child is not None and not part.child.alive:
                    self._on_exit(part)
                elif part.due is not None and time.monotonic() >= part.due:
                    self._try_again(part)

    def shut_down(self) -> None:
        """Stop every part, the last started first."""
        for part in reversed(self.parts):
            if part.child is None:
                continue
            by_itself = part.child.stop()
            part.child = None
            self._publish(part.scope)
            self.reporter.say(f"{part.name} stopped" if by_itself else f"{part.name} did not stop by itself and was killed")

    def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            Stopped: the stack shall stop.
        """
        if self.stop.wait(seconds):
            raise Stopped

    def _launch(self, part: Part) -> None:
        begun = time.monotonic()
        part.child = start(part.service, self.home, self.reporter, self.pause)
        part.started, part.due = time.monotonic(), None
        self._publish(part.scope)
        ports = "".join(f", {role} {number}" for role, number in part.service.ports.items())
        took = f" after {part.started - begun:.1f} s" if part.service.ports else ""
        self.reporter.say(f"{part.name} runs{took} (pid {part.child.pid}{ports})", pid=part.child.pid)

    def _try_again(self, part: Part) -> None:
        part.due = None
        try:
            self._launch(part)
        except Stopped:
            return
        except FlowError as error:
            self._failed(part, str(error))

    def _on_exit(self, part: Part) -> None:
        child = part.child
        if child is None:
            return
        code, words = child.exit_code, child.last_words()
        child.kill()
        part.child = None
        self._publish(part.scope)
        if code == 0 and part.finishes:
            part.finished = True
            self.reporter.say(f"{part.name} has finished" + (f": {words}" if words else ""))
            return
        if code == EXIT_REFUSED:
            raise StackError(f"the {part.name} refused to run: {words} (log: {log_path(self.home, part.name)})")
        if time.monotonic() - part.started > STEADY_SECONDS:
            part.failures = 0
        self._failed(part, f"{part.name} {describe_exit(code)}" + (f": {words}" if words else ""))

    def _failed(self, part: Part, reason: str) -> None:
        part.failures += 1
        if part.failures > FAILURES_ALLOWED:
            raise StackError(f"the {part.name} failed {part.failures} times: {reason} (log: {log_path(self.home, part.name)})")
        wait = min(FIRST_PAUSE_SECONDS * 2 ** (part.failures - 1), LONGEST_PAUSE_SECONDS)
        part.due = time.monotonic() + wait
        self.reporter.say(f"{reason}; starting it again in {wait:g} s", "WARNING", failures=part.failures)

    def _publish(self, scope: str) -> None:
        running = [(part, part.child) for part in self.parts if part.scope == scope and part.child is not None]
        runfile.write(self.home, scope, [runfile.Process.of(part.name, child.pid, part.service.ports) for part, child in running])


def supervise(supervisor: Supervisor, boot: Callable[[Supervisor], None]) -> None:
    """Boot the parts, keep them alive, and leave none behind whatever happens."""
    try:
        boot(supervisor)
        supervisor.watch()
    except Stopped:
        pass
    finally:
        supervisor.shut_down()
