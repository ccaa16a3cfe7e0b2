"""A part of the stack that listens: started on free ports, ready only when it is our own that answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from flowapp.embedded.ports import require_free
from flowapp.embedded.process import Child, Command, describe_exit
from flowapp.errors import StackError
from flowapp.logs import Record

READY_SECONDS = 90.0
POLL_SECONDS = 0.1


class Service(Protocol):
    """What `start` needs to know of a part."""

    @property
    def name(self) -> str: ...

    @property
    def ports(self) -> Mapping[str, int]: ...

    def prepare(self) -> None:
        """Write configuration and storage; may be run again."""

    def command(self) -> Command: ...

    def is_ready(self) -> bool:
        """Tell whether the part answers.

        Raises:
            StackError: somebody else answers.
        """


def log_path(home: Path, name: str) -> Path:
    """Return a part's log file."""
    return home / "logs" / f"{name}.log"


def start(
    service: Service,
    home: Path,
    on_record: Callable[[Record], None] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Child:
    """Start a part and return once it is ready; `pause` may raise to give up.

    Raises:
        PortTaken: somebody listens on one of its ports.
        StackError: it ended, another answers in its place, or it is not ready in time.
    """
    require_free(service.name, service.ports)
    service.prepare()
    child = Child(service.command(), log_path(home, service.name), on_record)
    try:
        _wait_ready(service, child, home, pause)
    except BaseException:
        child.kill()
        raise
    return child


def _wait_ready(service: Service, child: Child, home: Path, pause: Callable[[float], None]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        if not child.alive:
            ending = describe_exit(child.exit_code)
            raise StackError(f"the {service.name} {ending}: {child.last_words()} (log: {log_path(home, service.name)})")
        if service.is_ready() and child.alive:
            return
        if time.monotonic() > deadline:
            raise StackError(f"the {service.name} was not ready after {READY_SECONDS:.0f} s (log: {log_path(home, service.name)})")
        pause(POLL_SECONDS)
