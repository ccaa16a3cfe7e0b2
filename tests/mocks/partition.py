"""A partition without broker and disk: the in-memory twin of the engine's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flowapp.core.fold import Fold, MemoryState, Result
from flowapp.engine.partition import Cut, Partition
from flowapp.engine.position import Place, Position
from flowapp.engine.state import PartitionState


@dataclass
class Record:
    """A record as a consumer delivers it."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = 0


class MemoryPartition(Partition):
    """Keeps checkpoints in a list and rows in a dict."""

    def __init__(
        self, fold: Fold, number: int, stored: Position | None = None, on_commit: Callable[[Cut], None] = lambda cut: None
    ) -> None:
        self.fold = fold
        self.place = Place(fold.name, fold.input_topic, number, "changelog")
        self.rows = MemoryState()
        self.commits: list[Position] = []
        self.closed = False
        self.restored_rows = 0
        self._stored = stored
        self._on_commit = on_commit

    def open(self) -> bool:
        self.offset = self._cut_offset = -1 if self._stored is None else self._stored.offset
        self.state = PartitionState(self.rows)
        return self._stored is not None

    def commit(self, cut: Cut) -> None:
        self._on_commit(cut)
        changed = {key: row for key, row in cut.rows.items() if row is not None}
        self.rows.merge(Result(changed=changed, deleted=[key for key, row in cut.rows.items() if row is None]))
        self.commits.append(cut.position)
        self.state.landed()

    def close(self) -> None:
        self.closed = True
