"""The contract between rules and the machinery that drives them.

A fold is one agent's rules: records in, output records and changed state rows out, no input or output of its own.
The worker, the test vectors, replay, what-if, evaluation and the tests all drive the same object.

A frame holds rows of one input topic in log order, contiguous by partition: the columns of its record (union of the
topic's records; a row whose `w` is not null is a tick), plus

    _partition   Int64   partition of the record's origin
    _offset      Int64   offset of the record's origin

`judge` works on the rows of all partitions of a poll at once and adds `_error` (String, null for a valid row);
rows with an error become dead letters and never reach `apply`. `apply` sees the rows of one partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import polars as pl

PARTITION = "_partition"
OFFSET = "_offset"
ERROR = "_error"
TICK = "w"


class State(Protocol):
    """A partition's rows: a read-through mapping of bytes keys, and a slot for what a fold keeps decoded.

    `memory` belongs to the fold: dropping it (setting None) loses nothing, the fold loads it again from the rows.
    """

    memory: object | None

    def get(self, key: bytes) -> bytes | None:
        """Return the row under `key`, None when there is none."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, row) of every key that begins with `prefix`, ascending by key."""


@dataclass(frozen=True)
class Result:
    """What one batch of one partition brought about.

    `outputs`: by topic without namespace, frames of that topic's record, in the order in which they came about.
    `changed`, `deleted`: state rows; they hold bytes, never live objects.
    """

    outputs: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    changed: Mapping[bytes, bytes] = field(default_factory=dict)
    deleted: Sequence[bytes] = ()


class Fold(Protocol):
    """One agent's rules; stateless itself: everything remembered is in the `State` handed in."""

    name: str
    input_topic: str
    version: int
    rules: str
    config: str

    def judge(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Decide what is decided per record, as expressions over all rows; adds `_error`."""

    def apply(self, frame: pl.DataFrame, state: State) -> Result:
        """Fold valid rows of one partition, in log order; raises without having changed `state`'s rows."""


class MemoryState:
    """A partition's rows in a dict; the in-memory twin of the engine's state."""

    def __init__(self, rows: Mapping[bytes, bytes] | None = None) -> None:
        self.rows: dict[bytes, bytes] = dict(rows or {})
        self.memory: object | None = None

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(key for key in self.rows if key.startswith(prefix)):
            yield key, self.rows[key]

    def merge(self, result: Result) -> None:
        """Take a batch's changed and deleted rows over."""
        self.rows.update(result.changed)
        for key in result.deleted:
            self.rows.pop(key, None)


@dataclass(frozen=True)
class Refused:
    """A record that is not folded: where it stands and why."""

    partition: int
    offset: int
    stage: str
    error: str


def apply_guarded(fold: Fold, frame: pl.DataFrame, state: State, merge: Callable[[Result], None]) -> tuple[list[Result], list[Refused]]:
    """Fold a frame of one partition; when the fold raises, split it until the one record that raises is found.

    `merge` takes each result's rows into the state before the next part is folded. The record that raises is
    returned as refused (stage `fold`) and leaves no trace in the state.
    """
    if frame.is_empty():
        return [], []
    try:
        result = fold.apply(frame, state)
    except Exception as error:
        state.memory = None
        if frame.height == 1:
            row = frame.row(0, named=True)
            return [], [Refused(row[PARTITION], row[OFFSET], "fold", f"{type(error).__name__}: {error}")]
        half = frame.height // 2
        first_results, first_refused = apply_guarded(fold, frame[:half], state, merge)
        second_results, second_refused = apply_guarded(fold, frame[half:], state, merge)
        return first_results + second_results, first_refused + second_refused
    merge(result)
    return [result], []


def apply_poll(
    fold: Fold, frame: pl.DataFrame, states: Mapping[int, State], merge: Callable[[int, Result], None]
) -> list[tuple[int, list[Result], list[Refused]]]:
    """Fold valid rows of all partitions of a poll; return (partition, results, refused) in the frame's order.

    A fold that has `apply_poll(frame, states)` is asked for all at once, which gives what `apply` gives for each
    partition and costs less; when it raises, nothing has changed and each partition is folded on its own, guarded.
    """
    together = getattr(fold, "apply_poll", None)
    if together is not None and not frame.is_empty():
        try:
            found: Mapping[int, Result] = together(frame, states)
        except Exception:
            for partition, _ in split_by_partition(frame):
                states[partition].memory = None
            return _apply_apart(fold, frame, states, merge)
        for partition, result in found.items():
            merge(partition, result)
        return [(partition, [result], []) for partition, result in found.items()]
    return _apply_apart(fold, frame, states, merge)


def _apply_apart(
    fold: Fold, frame: pl.DataFrame, states: Mapping[int, State], merge: Callable[[int, Result], None]
) -> list[tuple[int, list[Result], list[Refused]]]:
    return [
        (partition, *apply_guarded(fold, rows, states[partition], partial(merge, partition)))
        for partition, rows in split_by_partition(frame)
    ]


def split_by_partition(frame: pl.DataFrame) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield (partition, rows in log order) for a frame that is contiguous by partition."""
    if frame.is_empty():
        return
    runs = frame[PARTITION].rle().struct.unnest()
    start = 0
    for length, partition in zip(runs["len"].to_list(), runs["value"].to_list(), strict=True):
        yield partition, frame[start : start + length]
        start += length


def split_valid(judged: pl.DataFrame) -> tuple[pl.DataFrame, list[Refused]]:
    """Return the valid rows of a judged frame, and the others as refused (stage `validate`)."""
    error = judged[ERROR]
    if error.null_count() == judged.height:
        return judged, []
    bad = judged.filter(error.is_not_null()).select(PARTITION, OFFSET, ERROR)
    return judged.filter(error.is_null()), [Refused(partition, offset, "validate", text) for partition, offset, text in bad.iter_rows()]


@dataclass
class RunResult:
    """What a whole log brought about: outputs by topic in order, refused records, the state of each partition."""

    outputs: dict[str, pl.DataFrame]
    refused: list[Refused]
    states: dict[int, MemoryState]


def _cut(frame: pl.DataFrame, batch: int) -> Iterator[pl.DataFrame]:
    for _, rows in split_by_partition(frame):
        for start in range(0, rows.height, batch):
            yield rows[start : start + batch]


def run(
    fold: Fold, frames: pl.DataFrame | Iterable[pl.DataFrame], batch: int | None = None, states: dict[int, MemoryState] | None = None
) -> RunResult:
    """Drive a fold over a decoded log in process.

    Args:
        frames: the log, one frame or several in log order (each contiguous by partition).
        batch: most rows of one partition in one `apply`; None for all.
        states: state to go on from; changed in place.
    """
    states = {} if states is None else states
    parts: dict[str, list[pl.DataFrame]] = {}
    refused: list[Refused] = []
    for frame in [frames] if isinstance(frames, pl.DataFrame) else frames:
        judged = fold.judge(frame)
        valid, bad = split_valid(judged)
        refused += bad
        for partition, _ in split_by_partition(valid):
            states.setdefault(partition, MemoryState())
        for part in [valid] if batch is None else _cut(valid, batch):
            for _, results, bad_rows in apply_poll(fold, part, states, lambda partition, result: states[partition].merge(result)):
                refused += bad_rows
                for result in results:
                    for topic, output in result.outputs.items():
                        if not output.is_empty():
                            parts.setdefault(topic, []).append(output)
    return RunResult({topic: pl.concat(frames_) for topic, frames_ in parts.items()}, refused, states)
