"""A child process: started tied to us, its output turned into log records, stopped in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from flowapp.embedded.logfile import LogFile
from flowapp.logs import LEVELS, Record, parse

STOP_SECONDS = 20.0
KILL_SECONDS = 10.0
TAIL_RECORDS = 20
LAST_WORDS = 3
LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Command:
    """What to run; with `shows_output` its standard output is ours and only standard error is logged."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: Path | None = None
    shows_output: bool = False


class Child:
    """A running command."""

    def __init__(self, command: Command, log_path: Path, on_record: Callable[[Record], None] | None = None) -> None:
        self.command, self.name = command, command.name
        self.tail: deque[Record] = deque(maxlen=TAIL_RECORDS)
        self._log, self._on_record = LogFile(log_path), on_record
        # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the parts in order.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *command.arguments],
            env=dict(command.environment),
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=None if command.shows_output else subprocess.PIPE,
            stderr=subprocess.PIPE if command.shows_output else subprocess.STDOUT,
            start_new_session=True,
        )
        stream = self._process.stderr if command.shows_output else self._process.stdout
        if stream is None:
            raise AssertionError("a pipe was asked for")
        self._pump = threading.Thread(target=self._read, args=(stream,), name=f"log-{self.name}", daemon=True)
        self._pump.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def ask_to_stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal, if the process still runs."""
        if self.alive:
            self._process.send_signal(number)

    def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """Ask the process to end, kill it (and what it started) after so long; return whether it ended by itself."""
        self.ask_to_stop()
        try:
            self._process.wait(seconds)
            by_itself = True
        except subprocess.TimeoutExpired:
            by_itself = False
        self._kill_group()
        self._process.wait(KILL_SECONDS)
        self._finish()
        return by_itself

    def kill(self) -> None:
        """Kill the process and what it started."""
        self._kill_group()
        self._process.wait(KILL_SECONDS)
        self._finish()

    def last_words(self) -> str:
        """Return the end of its log as text: the last errors, else the last lines of one that ended by itself."""
        self._pump.join(1.0)
        errors = [record for record in self.tail if record.severity >= LEVELS["ERROR"]]
        chosen = errors or (list(self.tail) if (self.exit_code or 0) >= 0 else [])
        return "; ".join(record.msg.strip() for record in chosen[-LAST_WORDS:])

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # nobody is left (macOS says it the second way for zombies)
            return

    def _finish(self) -> None:
        self._pump.join(KILL_SECONDS)
        self._log.close()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                record = parse(line.decode("utf-8", "replace"), self.name)
                if not record.msg.strip() and not record.context:
                    continue
                self.tail.append(record)
                self._log.write(record)
                if self._on_record is not None:
                    self._on_record(record)


def describe_exit(code: int | None) -> str:
    """Say how a process ended."""
    if code is None:
        return "still runs"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
