"""One partition of one agent in this process: taken over, restored, applied to, checkpointed, let go."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowapp import topics
from flowapp.core.fold import Fold
from flowapp.engine import position as positions
from flowapp.engine.changelog import ChangelogReader, ChangelogWriter, restore, transactional_id
from flowapp.engine.disk import Disk
from flowapp.engine.position import POSITION_KEY, Place, Position
from flowapp.engine.state import PartitionState, Rows
from flowapp.errors import StateError

log = logging.getLogger("flowapp.engine.partition")

Step = Callable[[str, Place], None]


def no_step(step: str, place: Place) -> None:
    """Observe nothing."""


@dataclass(frozen=True)
class Cut:
    """What a checkpoint of a partition writes."""

    rows: Rows
    position: Position


class Partition:
    """A partition that this process owns from `open` to `close`.

    `offset` is the last applied one; `on_step` is told each step of a checkpoint just before it is taken.
    """

    def __init__(self, bootstrap: str, namespace: str, fold: Fold, partition: int, directory: Path, on_step: Step = no_step) -> None:
        self.fold = fold
        self.place = Place(fold.name, topics.full_name(namespace, fold.input_topic), partition, topics.changelog_name(namespace, fold.name))
        self._bootstrap = bootstrap
        self._directory = directory
        self._transactional_id = transactional_id(topics.app_id(namespace), fold.name, partition)
        self._on_step = on_step
        self._stored: Position | None = None
        self.restored_rows = 0

    def open(self) -> bool:
        """Fence the old owner, restore, and check that state, log and rules belong together.

        Returns:
            Whether rules and configuration are those of the stored state; False also when there is none.

        Raises:
            StateError: they do not belong together; the text says what to do.
        """
        self._writer = ChangelogWriter(self._bootstrap, self.place, self._transactional_id)
        self._writer.fence()
        self._disk = Disk(self._directory / str(self.place.partition))
        reader = ChangelogReader(self._bootstrap, self.place)
        try:
            self._stored, self.restored_rows = restore(self._disk, self.place, reader)
            following = positions.check_log(self.place, self._stored, *reader.bounds(self.place.topic))
        finally:
            reader.close()
        self.offset = self._cut_offset = following - 1
        self.state = PartitionState(self._disk)
        return self._stored is not None and positions.check_fold(self.place, self._stored, self.fold)

    def begin(self) -> None:
        """Write, before any output leaves, that what follows is not yet whole."""
        self.commit(self.cut(clean=False))

    @property
    def emit_from(self) -> int:
        """Offset below which records are folded but nothing is sent."""
        return 0 if self._stored is None else self._stored.emit_from

    @property
    def was_clean(self) -> bool:
        """Whether the state as last written was that of a clean stop; True when there was none."""
        return self._stored is None or self._stored.clean

    @property
    def moved(self) -> bool:
        """Whether records were applied since the last cut."""
        return self.offset > self._cut_offset

    def cut(self, *, clean: bool) -> Cut:
        """Freeze what changed since the last cut, with the position it belongs to."""
        number = 1 if self._stored is None else self._stored.number + 1
        self._stored = Position(self.offset, number, self.fold.version, self.fold.rules, self.fold.config, clean, self.emit_from)
        self._cut_offset = self.offset
        return Cut(self.state.cut(), self._stored)

    def commit(self, cut: Cut) -> None:
        """Write a cut: one transaction, then the disk.

        Raises:
            StateError: the transaction was refused or its outcome is unknown.
        """
        self._on_step("before_transaction", self.place)
        following = self._writer.write(cut.rows, cut.position, lambda: self._on_step("inside_transaction", self.place))
        if following <= 0:
            raise StateError(f"{self.place}: the broker committed a checkpoint without saying where")
        self._on_step("after_commit", self.place)
        self._disk.write({**cut.rows, POSITION_KEY: positions.encode(cut.position)}, following)
        self.state.landed()
        self._on_step("after_disk", self.place)

    def close(self) -> None:
        """Drop what is cached and give disk and connections back."""
        self._disk.close()
        self._writer.close()
