"""Our own programs as parts of the stack: worker, edge and the packets on the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from flowapp.embedded.ports import LOOPBACK, answers
from flowapp.embedded.process import Command
from flowapp.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """Return what a child of ours finds: this process's environment and every setting as it is here."""
    return {**os.environ, **settings.environment(complete=True), "PYTHONUNBUFFERED": "1"}


class Program:
    """A Python program that is ready when it runs."""

    ports: Mapping[str, int]

    def __init__(self, settings: Settings, name: str, *arguments: str, shows_output: bool = False) -> None:
        self.settings, self.name, self.ports = settings, name, {}
        self._command = Command(name, (sys.executable, "-m", *arguments), environment(settings), shows_output=shows_output)

    def prepare(self) -> None:
        """Nothing to do before."""

    def command(self) -> Command:
        """Return how it is run."""
        return self._command

    def is_ready(self) -> bool:
        """A program without a port is ready at once."""
        return True


class Worker(Program):
    """The Faust worker with its agents; ready when its metrics answer."""

    def __init__(self, settings: Settings) -> None:
        # Without both web options Faust listens on every address.
        web = ("--without-web", "--web-host", LOOPBACK)
        super().__init__(settings, "worker", "faust", "-A", "flowapp", "worker", "-L", "uvloop", *web)
        self.ports = {"metrics port": settings.metrics_port}

    def is_ready(self) -> bool:
        """Tell whether the metrics port answers."""
        return answers(self.settings.metrics_port)


def edge(settings: Settings) -> Program:
    """Return the edge with the settings' feeds."""
    return Program(settings, "edge", "flowapp.cli", "ingest")


def watch(settings: Settings) -> Program:
    """Return the packets, on our own standard output."""
    return Program(settings, "watch", "flowapp.cli", "watch", shows_output=True)
