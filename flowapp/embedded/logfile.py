"""A service's log file."""

from __future__ import annotations

from pathlib import Path

from flowapp.logs import Record

ROTATE_BYTES = 32 << 20


class LogFile:
    """A service's log file; the previous one is kept when it grows past a limit."""

    def __init__(self, path: Path, rotate_bytes: int = ROTATE_BYTES) -> None:
        self.path, self.rotate_bytes = path, rotate_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def write(self, record: Record) -> None:
        """Append a record."""
        if self._file.tell() > self.rotate_bytes:
            self._file.close()
            self.path.replace(self.path.with_suffix(".log.1"))
            self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._file.write(record.to_json() + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
