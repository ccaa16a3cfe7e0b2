"""Manifest of a cached component: sizes are compared at every start, contents when asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FILE_NAME = "manifest.json"
CHUNK_BYTES = 1 << 20


def sha1_of(path: Path) -> str:
    """Hash a file."""
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write(folder: Path, pins: list[str]) -> None:
    """Record size and sha1 of every file in `folder`, and the pins it was made from."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE_NAME)
    rows = {path.relative_to(folder).as_posix(): [path.stat().st_size, sha1_of(path)] for path in files}
    (folder / FILE_NAME).write_text(json.dumps({"pins": pins, "files": rows}, indent=0))


def damaged(folder: Path, pins: list[str], contents: bool = False) -> list[str] | None:
    """Return the files that are missing or differ, by size or (`contents`) by sha1; None when there is no usable manifest."""
    try:
        stored = json.loads((folder / FILE_NAME).read_text())
        if stored["pins"] != pins:
            return None
        rows: dict[str, tuple[int, str]] = stored["files"]
    except (OSError, ValueError, KeyError):
        return None
    return [name for name, (size, sha1) in rows.items() if not _matches(folder / name, size, sha1 if contents else None)]


def _matches(path: Path, size_bytes: int, sha1: str | None) -> bool:
    try:
        if path.stat().st_size != size_bytes:
            return False
    except OSError:
        return False
    return sha1 is None or sha1_of(path) == sha1
