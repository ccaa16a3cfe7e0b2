"""A worker with mock agents: `faust -A tests.mocks.worker worker`.

MOCK_AGENTS: agents, separated by commas. MOCK_CONFIG, MOCK_VERSION: what their folds claim to be.
FLOW_CRASH_AT=agent:step:partition:n kills the process at the n-th time a step of a checkpoint of a partition is reached;
FLOW_HOLD_AT=agent:step:partition:n=file makes it write `file` there and wait until the file is gone.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

from flowapp.engine.position import Place
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry
from flowapp.settings import Settings
from flowapp.worker import create_app
from tests.mocks.tally import TallyCodec, TallyFold


class Faults:
    """Counts the steps of checkpoints and does harm at the chosen one."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, Place]] = Counter()
        self._crash = os.environ.get("FLOW_CRASH_AT", "")
        self._hold, _, self._file = os.environ.get("FLOW_HOLD_AT", "").partition("=")

    def __call__(self, step: str, place: Place) -> None:
        """Take note of a step."""
        self._seen[step, place] += 1
        point = f"{place.agent}:{step}:{place.partition}:{self._seen[step, place]}"
        if point == self._crash:
            os.kill(os.getpid(), signal.SIGKILL)
        if point == self._hold:
            file = Path(self._file)
            file.touch()
            while file.exists():
                time.sleep(0.01)


settings = Settings.load()
app = create_app(settings, TallyCodec(Codec(HttpRegistry(settings.registry_url))), Faults())
for agent in os.environ.get("MOCK_AGENTS", "options").split(","):
    app.add_fold(TallyFold(agent, os.environ.get("MOCK_CONFIG", "a"), int(os.environ.get("MOCK_VERSION", "1"))))
