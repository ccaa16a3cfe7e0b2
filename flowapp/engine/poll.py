"""The records of one poll over all partitions of an agent, and how they become a frame and dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core.fold import OFFSET, PARTITION
from flowapp.errors import FoldError

# Polars loads NumPy and Arrow at their first use, and two threads that do so at once break it: do it here, on one.
pl.from_arrow(pl.from_numpy(np.zeros((1, 1))).to_arrow())


class Record(Protocol):
    """A record as the consumer delivers it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True)
class Run:
    """Consecutive records of one partition as fetched, and the log's end as it was known then."""

    partition: int
    records: Sequence[Any]
    generation: int
    log_end: int | None = None


@dataclass(frozen=True)
class Poll:
    """Records of several partitions, each partition's together and in log order."""

    records: list[Any]
    values: list[bytes | None]
    partitions: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    last: Mapping[int, int]
    log_ends: Mapping[int, int]

    @classmethod
    def of(cls, runs: Iterable[Run], applied: Mapping[int, int]) -> Poll:
        """Put runs together, without records that are applied already.

        Args:
            applied: last applied offset of each partition.

        Raises:
            FoldError: a record is missing between the last applied one and the run, or within the run.
        """
        by_partition: dict[int, list[Any]] = {}
        log_ends: dict[int, int] = {}
        last = dict(applied)
        for run in runs:
            fresh = _fresh(run, last[run.partition])
            if fresh:
                by_partition.setdefault(run.partition, []).extend(fresh)
                last[run.partition] = fresh[-1].offset
            if run.log_end is not None:
                log_ends[run.partition] = run.log_end
        records: list[Any] = []
        partitions, offsets = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for partition, rows in by_partition.items():
            records += rows
            partitions.append(np.full(len(rows), partition, np.int64))
            offsets.append(np.arange(last[partition] - len(rows) + 1, last[partition] + 1, dtype=np.int64))
        return cls(
            records,
            [record.value for record in records],
            np.concatenate(partitions),
            np.concatenate(offsets),
            {partition: last[partition] for partition in by_partition},
            log_ends,
        )

    def frame(self, decoded: pl.DataFrame, row_column: str) -> pl.DataFrame:
        """Replace the row numbers of decoded records by their origins."""
        rows = decoded[row_column].to_numpy()
        whole = len(rows) == len(self.records)
        partitions, offsets = (self.partitions, self.offsets) if whole else (self.partitions[rows], self.offsets[rows])
        return decoded.drop(row_column).with_columns(pl.Series(PARTITION, partitions), pl.Series(OFFSET, offsets))

    def row_of(self, partition: int, offset: int) -> int:
        """Return the row of a record by its origin."""
        return int(np.flatnonzero((self.partitions == partition) & (self.offsets == offset))[0])


def _fresh(run: Run, applied: int) -> Sequence[Any]:
    """Return a run's records behind `applied`, having checked that none is missing."""
    first, last = run.records[0].offset, run.records[-1].offset
    if last - first + 1 != len(run.records):
        raise FoldError(f"partition {run.partition}: offsets {first} to {last} hold {len(run.records)} records; raw logs have no gaps")
    if first > applied + 1:
        raise FoldError(f"partition {run.partition}: expected offset {applied + 1}, the log continued at {first}")
    return run.records[applied + 1 - first :] if first <= applied else run.records
