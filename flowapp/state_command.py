"""`flow state`: show what workers have stored, accept changed rules, recompute from the log."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from flowapp import topic_admin, topics
from flowapp.engine import position as positions
from flowapp.engine.changelog import ChangelogReader, ChangelogWriter, transactional_id
from flowapp.engine.position import POSITION_KEY, Place, Position
from flowapp.engine.state import Rows
from flowapp.errors import NamespaceError, StateError
from flowapp.settings import Settings

COLUMNS = ("agent", "partition", "offset", "log", "behind", "rules", "config", "version", "clean", "rows")


def add_parser(subparsers: Any) -> None:
    """Add `state` to the commands of `flow`."""
    parser = subparsers.add_parser("state", help="show, accept or rebuild a worker's state")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, about, needed in (
        ("show", "up to where each partition's state holds, and under which rules", False),
        ("accept-config", "go on under changed rules or settings after an unclean stop", True),
        ("rebuild", "recompute an agent's state and outputs from the log's start", True),
    ):
        action = actions.add_parser(name, help=about)
        action.add_argument("--agent", metavar="NAME", choices=sorted(topics.AGENT_INPUTS), required=needed, help="which agent")
        action.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run `flow state ACTION`."""
    settings = Settings.load()
    actions: dict[str, Callable[[Settings, str], None]] = {"accept-config": accept_config, "rebuild": rebuild}
    if args.action == "show":
        show(settings, [args.agent] if args.agent else sorted(topics.AGENT_INPUTS))
        return 0
    actions[args.action](settings, args.agent)
    return 0


@dataclass(frozen=True)
class Stored:
    """What the broker holds of one partition of an agent."""

    place: Place
    rows: Rows
    position: Position | None
    log_start: int
    log_end: int


def places(settings: Settings, agent: str) -> list[Place]:
    """Return the partitions of an agent.

    Raises:
        NamespaceError: the namespace has no such topics.
    """
    topic = topics.full_name(settings.namespace, topics.AGENT_INPUTS[agent])
    changelog = topics.changelog_name(settings.namespace, agent)
    counts = topic_admin.partition_counts(topic_admin.admin(settings), settings)
    if topic not in counts or changelog not in counts:
        raise NamespaceError(f"namespace {settings.namespace} lacks {topic} or {changelog}; create its topics with: flow init")
    return [Place(agent, topic, partition, changelog) for partition in range(counts[topic])]


def read(settings: Settings, place: Place) -> Stored:
    """Read one partition's rows and the bounds of its log."""
    reader = ChangelogReader(settings.bootstrap, place)
    try:
        low, high = reader.bounds(place.changelog)
        rows: dict[bytes, bytes | None] = {}
        if high > low:
            for batch in reader.batches(low, high):
                rows.update(batch)
        start, end = reader.bounds(place.topic)
    finally:
        reader.close()
    kept = {key: row for key, row in rows.items() if row is not None}
    return Stored(place, kept, positions.decode(kept.get(POSITION_KEY)), start, end)


def read_all(settings: Settings, agent: str) -> list[Stored]:
    """Read every partition of an agent."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda place: read(settings, place), places(settings, agent)))


def show(settings: Settings, agents: Sequence[str]) -> None:
    """Print a table of what is stored."""
    lines = [COLUMNS]
    for agent in agents:
        for stored in read_all(settings, agent):
            place, found = stored.place, stored.position
            offset = -1 if found is None else found.offset
            facts = ("-",) * 4 if found is None else (found.rules, found.config, str(found.version), "yes" if found.clean else "no")
            log = f"{stored.log_start}..{stored.log_end}"
            behind = stored.log_end - max(offset + 1, stored.log_start)
            lines.append((agent, str(place.partition), str(offset), log, str(behind), *facts, str(max(0, len(stored.rows) - 1))))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())


def accept_config(settings: Settings, agent: str) -> None:
    """Mark an agent's state as clean, so that its next start may have other rules or settings."""
    refuse_if_active(settings)

    def accept(stored: Stored) -> None:
        if stored.position is not None:
            _write(settings, stored.place, {}, _next(stored.position, clean=True))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(accept, read_all(settings, agent)))
    print(f"agent {agent}: the next start may have other rules or settings; what was sent since its last checkpoint stays as it is")


def rebuild(settings: Settings, agent: str) -> None:
    """Forget an agent's state; its next start folds the log from its start and sends everything again."""
    seek(settings, agent)
    print(f"agent {agent}: state forgotten; the next start recomputes it from the start of the log and sends its outputs again")


def seek(settings: Settings, agent: str, start: Sequence[int] | None = None, emit_from: Sequence[int] | None = None) -> None:
    """Forget an agent's state and set its positions.

    Args:
        start: by partition, the offset to fold from; None for the log's start.
        emit_from: by partition, the offset below which nothing is sent; None to send everything.

    Raises:
        StateError: a worker is active.
    """
    refuse_if_active(settings)

    def forget(stored: Stored) -> None:
        partition = stored.place.partition
        following = stored.log_start if start is None else start[partition]
        silent_below = 0 if emit_from is None else emit_from[partition]
        number = 0 if stored.position is None else stored.position.number
        gone = dict.fromkeys(key for key in stored.rows if key != POSITION_KEY)
        # Far ahead of any local disk, so that every disk is restored whole.
        _write(settings, stored.place, gone, Position(following - 1, number + 2, positions.ANY_VERSION, "", "", True, silent_below))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(forget, read_all(settings, agent)))
    shutil.rmtree(settings.home / settings.namespace / "state" / str(settings.worker_id) / agent, ignore_errors=True)


def _next(position: Position, *, clean: bool) -> Position:
    return msgspec.structs.replace(position, number=position.number + 1, clean=clean)


def _write(settings: Settings, place: Place, rows: Rows, position: Position) -> None:
    writer = ChangelogWriter(settings.bootstrap, place, transactional_id(topics.app_id(settings.namespace), place.agent, place.partition))
    try:
        writer.fence()
        writer.write(rows, position)
    finally:
        writer.close()


def refuse_if_active(settings: Settings) -> None:
    """Check that no worker runs.

    Raises:
        StateError: names who does.
    """
    members = topic_admin.active_members(topic_admin.admin(settings), settings.namespace)
    if members:
        raise StateError(
            f"namespace {settings.namespace} is in use by {len(members)} worker(s): {', '.join(members)}; stop them first "
            "(a worker that has just ended counts until its session does, 10 s)"
        )
