"""A raw topic as the edge writes it: numbers its records and leaves out what the log already holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flowapp.edge.order import Ints

NOTHING_LOGGED = -1


@dataclass(frozen=True)
class Logged:
    """What a run's log holds of a topic: the last seq of every partition, and the last records by seq."""

    seq: dict[int, int] = field(default_factory=dict)
    values: dict[int, dict[int, bytes]] = field(default_factory=dict)


class Outlet:
    """Numbers of a topic's records within (run, partition), from 0 without gaps."""

    def __init__(self, topic: str, partitions: int, logged: Logged | None = None) -> None:
        self.topic = topic
        self.logged = logged or Logged()
        self._next = np.zeros(partitions, np.int64)
        self._last = np.full(partitions, NOTHING_LOGGED, np.int64)
        self._compared = np.zeros(partitions, np.int64)
        for partition, seq in self.logged.seq.items():
            self._last[partition] = seq
            self._compared[partition] = min(self.logged.values[partition])

    def number(self, partition: Ints, place: Ints) -> Ints:
        """Return the seq of each record; `place` says in which order they stand."""
        order = np.argsort(place, kind="stable")
        order = order[np.argsort(partition[order], kind="stable")]
        sorted_ = partition[order]
        seq = np.empty(order.size, np.int64)
        seq[order] = self._next[sorted_] + np.arange(order.size) - np.searchsorted(sorted_, sorted_)
        self._next += np.bincount(partition, minlength=self._next.size)
        return seq

    def wanted(self, partition: Ints, seq: Ints) -> Ints:
        """Return the rows to build: those the log does not hold, and the last ones it does, to be compared."""
        return np.flatnonzero(seq >= self._compared[partition])

    def is_logged(self, partition: Ints, seq: Ints) -> Sequence[bool]:
        """Tell which records the log holds."""
        logged: list[bool] = (seq <= self._last[partition]).tolist()
        return logged

    @property
    def behind(self) -> bool:
        """Whether the log still holds records that were not made again yet."""
        return bool(np.any(self._next <= self._last))

    @property
    def count(self) -> int:
        """Number of records numbered so far."""
        return int(self._next.sum())
