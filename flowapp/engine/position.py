"""The position row: up to where a partition's state holds, and under which rules it came about."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from flowapp.core.fold import Fold
from flowapp.errors import ConfigChanged, StateError

# Rows under this prefix belong to the engine; a fold neither sees nor writes them.
RESERVED_PREFIX = b"__"
POSITION_KEY = b"__position"
# Version of a position row behind which there are no rows yet, as written by a seek.
ANY_VERSION = -1


class Position(msgspec.Struct, frozen=True):
    """Content of the position row.

    `offset` is the last applied one (-1 before the first), `number` counts checkpoints of the partition, `clean` says
    whether the last owner stopped with everything checkpointed, below `emit_from` records are folded but nothing is sent.
    """

    offset: int
    number: int
    version: int
    rules: str
    config: str
    clean: bool
    emit_from: int = 0


@dataclass(frozen=True)
class Place:
    """Names of one partition of one agent, as errors and tools speak of it."""

    agent: str
    topic: str
    partition: int
    changelog: str

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


def encode(position: Position) -> bytes:
    """Return the row's bytes."""
    return msgspec.json.encode(position)


def decode(row: bytes | None) -> Position | None:
    """Return the content of a position row, None when there is none.

    Raises:
        StateError: the bytes are no position row.
    """
    if row is None:
        return None
    try:
        return msgspec.json.decode(row, type=Position)
    except msgspec.DecodeError as error:
        raise StateError(f"the position row was {row[:80]!r}: {error}") from error


def check_fold(place: Place, position: Position, fold: Fold) -> bool:
    """Return whether rules and configuration are those of the stored state.

    Raises:
        StateError: another state version wrote it.
        ConfigChanged: they differ, and records since the last checkpoint were sent under the old ones.
    """
    if position.version == ANY_VERSION:
        return False
    if position.version != fold.version:
        raise StateError(
            f"{place}: state of agent {place.agent} has version {position.version}, this program writes version {fold.version}; "
            f"recompute it with: flow state rebuild --agent {place.agent}"
        )
    if (position.rules, position.config) == (fold.rules, fold.config):
        return True
    if not position.clean:
        raise ConfigChanged(
            f"{place}: rules or settings changed since an unclean stop of agent {place.agent} (rules {position.rules} -> {fold.rules}, "
            f"configuration {position.config} -> {fold.config}), and records behind offset {position.offset} may have been sent under "
            f"the old ones; start once more with the old settings and stop cleanly, or run: flow state accept-config --agent {place.agent}"
        )
    return False


def check_log(place: Place, position: Position | None, log_start: int, log_end: int) -> int:
    """Return the offset to go on from, given the bounds of the raw log.

    Raises:
        StateError: the log no longer holds what comes next, or ends before what was applied.
    """
    following = 0 if position is None else position.offset + 1
    if following < log_start:
        raise StateError(
            f"{place}: offsets {following} to {log_start - 1} are lost, the log begins at {log_start} (retention); "
            f"begin there with: flow state rebuild --agent {place.agent}"
        )
    if following > log_end:
        raise StateError(
            f"{place}: state of agent {place.agent} holds up to offset {following - 1}, but the log ends at {log_end}: the topic was "
            f"wiped or recreated under kept state; reset the namespace, or run: flow state rebuild --agent {place.agent}"
        )
    return following


def check_disk(place: Place, next_changelog_offset: int, changelog_end: int) -> None:
    """Refuse a disk that knows more of the changelog than the broker has.

    Raises:
        StateError: the changelog was wiped and the disk kept.
    """
    if next_changelog_offset > changelog_end:
        raise StateError(
            f"{place}: the state on this disk holds up to offset {next_changelog_offset - 1} of {place.changelog}, which ends at "
            f"{changelog_end}: topics were wiped and the state directory kept; reset the namespace, or run: "
            f"flow state rebuild --agent {place.agent}"
        )
