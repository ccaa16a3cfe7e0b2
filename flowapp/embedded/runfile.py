"""What a running stack leaves for others to read: which processes it has, and who they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

KILL_WAIT_SECONDS = 5.0
INFRA = "infra"


@dataclass(frozen=True)
class Process:
    """A part's process; the time of its start tells it from a later one with the same number."""

    name: str
    pid: int
    created: float
    ports: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, pid: int, ports: Mapping[str, int]) -> Process:
        """Describe a running process."""
        return cls(name, pid, _created(pid) or 0.0, dict(ports))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _created(self.pid) == self.created

    def memory_bytes(self) -> int:
        """Return the resident memory of the process and what it started."""
        try:
            own = psutil.Process(self.pid)
            return sum(process.memory_info().rss for process in [own, *own.children(recursive=True)])
        except psutil.Error:
            return 0


def services_scope(namespace: str) -> str:
    """Return the name under which a namespace's programs are kept."""
    return f"services-{namespace}"


def path_of(home: Path, scope: str, ending: str = "json") -> Path:
    """Return the file of a scope: `infra`, or `services-<namespace>`; with `lock` its lock."""
    return home / "run" / f"{scope}.{ending}"


def write(home: Path, scope: str, processes: Iterable[Process]) -> None:
    """Replace the file of a scope."""
    path = path_of(home, scope)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps([asdict(process) for process in processes]))
    temporary.replace(path)


def read(home: Path, scope: str) -> list[Process]:
    """Return the processes of a scope that still run."""
    try:
        rows = json.loads(path_of(home, scope).read_text())
    except (OSError, ValueError):
        return []
    return [process for process in (Process(**row) for row in rows) if process.alive]


def end_leftovers(home: Path, scope: str) -> list[str]:
    """Kill what an earlier stack left running when it was killed itself (its lock must be ours); return the names."""
    names, handles = [], []
    for process in read(home, scope):
        try:
            handle = psutil.Process(process.pid)
            handle.kill()
        except psutil.NoSuchProcess:
            continue
        names.append(process.name)
        handles.append(handle)
    psutil.wait_procs(handles, KILL_WAIT_SECONDS)
    return names


def _created(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None
