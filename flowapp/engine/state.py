"""What a fold sees of a partition: rows changed since the last checkpoint over those on disk."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Protocol

from flowapp.core.fold import Result
from flowapp.engine.position import RESERVED_PREFIX
from flowapp.errors import FoldError

Rows = Mapping[bytes, bytes | None]


class Reader(Protocol):
    """Where rows that did not change lately stand."""

    def get(self, key: bytes) -> bytes | None:
        """Return the row under `key`."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield rows by key prefix, ascending by key."""


class PartitionState:
    """A partition's rows in three layers: changed since the last cut, in a checkpoint on its way, on disk.

    A row of None is a deleted one. The layer on its way is let go only after it is on disk, so a reader in between
    finds a row in one or the other.
    """

    def __init__(self, disk: Reader) -> None:
        self.memory: object | None = None
        self._disk = disk
        self._changed: dict[bytes, bytes | None] = {}
        self._leaving: Rows = {}

    def get(self, key: bytes) -> bytes | None:
        if key in self._changed:
            return self._changed[key]
        leaving = self._leaving
        if key in leaving:
            return leaving[key]
        return self._disk.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        over = {**_matching(self._leaving, prefix), **_matching(self._changed, prefix)}
        below = ((key, row) for key, row in self._disk.scan(prefix) if key not in over and not key.startswith(RESERVED_PREFIX))
        above = ((key, row) for key, row in sorted(over.items()) if row is not None)
        yield from heapq.merge(below, above)

    def merge(self, result: Result) -> None:
        """Take a batch's changed and deleted rows over."""
        for keys in (result.changed, result.deleted):
            if any(key.startswith(RESERVED_PREFIX) for key in keys):
                raise FoldError(f"a fold wrote a row under the engine's own prefix {RESERVED_PREFIX!r}")
        self._changed.update(result.changed)
        self._changed.update(dict.fromkeys(result.deleted))

    def cut(self) -> Rows:
        """Begin a new layer; return the rows of the one that ends, which leaves for the changelog."""
        if self._leaving:
            raise FoldError("a checkpoint was begun while another one was on its way")
        self._leaving, self._changed = self._changed, {}
        return self._leaving

    def landed(self) -> None:
        """Let the layer go that left with the last cut: it is on disk."""
        self._leaving = {}


def _matching(rows: Rows, prefix: bytes) -> dict[bytes, bytes | None]:
    return {key: row for key, row in list(rows.items()) if key.startswith(prefix)}
