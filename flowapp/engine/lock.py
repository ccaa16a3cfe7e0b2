"""One worker for one state directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from flowapp.errors import StateError

LOCK_NAME = "worker.lock"


class StateLock:
    """Holds a state directory until it is closed or the process ends."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._file = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode().strip() or "unknown"
            os.close(self._file)
            raise StateError(
                f"state directory {directory} is in use by process {holder}; give each worker of this machine its own WORKER_ID"
            ) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, b"%d\n" % os.getpid(), 0)

    def close(self) -> None:
        """Let the directory go."""
        os.close(self._file)
