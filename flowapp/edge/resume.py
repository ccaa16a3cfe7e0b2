"""How an edge goes on: what the log already holds of its run, and that the source still says the same.

A file or a synthetic market is read again from its start and makes the same records again. What a partition's log
holds is left out; the records made again at the last logged places must equal those there, their stamp excepted.
"""

from __future__ import annotations

import fcntl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from flowapp import topics
from flowapp.edge.outlet import Logged
from flowapp.edge.rawlog import RawLog
from flowapp.errors import NamespaceError
from flowapp.records.codec import Codec

STAMP = frozenset({"nbbo_side", "notional", "is_etf", "signal_pass", "signal_reasons", "signal_profile", "quote_stale", "config"})
# Bytes that are no record may stand at the end of a log; they are passed over.
LOOKS = (8, 512, 20_000)
COMPARED_RECORDS = 8


@dataclass(frozen=True)
class Standing:
    """Where a topic's log ends: of this run, and the newest time and tick in it of whatever run."""

    logged: Logged = field(default_factory=Logged)
    newest_ts: int | None = None
    ticks: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _End:
    """A partition's last record, its last ones' bytes by seq as far as they are of the same run, and its last tick."""

    row: dict[str, Any]
    values: dict[int, bytes]
    tick: int | None


def standing(log: RawLog, codec: Codec, topic: str, partitions: Sequence[int], run: str) -> Standing:
    """Look at the ends of a topic's partitions."""
    seq, recent, ticks = {}, {}, {}
    newest: int | None = None
    for partition, end in _ends(log, codec, topic, partitions).items():
        if end.row["run"] == run:
            seq[partition], recent[partition] = end.row["seq"], end.values
        moment = end.row["source_ts"] if end.row.get("w") is None else end.row["w"]
        newest = moment if newest is None else max(newest, moment)
        if end.tick is not None:
            ticks[partition] = end.tick
    return Standing(Logged(seq, recent), newest, ticks)


def _ends(log: RawLog, codec: Codec, topic: str, partitions: Sequence[int]) -> dict[int, _End]:
    """Look further and further back until each partition showed its last record and its last tick, or all it has."""
    ends: dict[int, _End] = {}
    open_ = list(partitions)
    for count in LOOKS:
        values = log.tails(topic, open_, count)
        for partition in open_:
            frame = codec.decode(topic, values[partition]).frame
            if frame.height:
                row = frame.row(-1, named=True)
                ticks = frame["w"].drop_nulls().to_list() if "w" in frame.columns else []
                same = frame.tail(COMPARED_RECORDS).filter(run=row["run"]).select("seq", "_row")
                ends[partition] = _End(row, {seq: values[partition][at] for seq, at in same.iter_rows()}, ticks[-1] if ticks else None)
        with_ticks = topic in topics.AGENT_INPUTS.values()
        full = [partition for partition in open_ if len(values[partition]) == count]
        open_ = [partition for partition in full if partition not in ends or (with_ticks and ends[partition].tick is None)]
        if not open_:
            break
    return ends


class Comparison:
    """Compares what the source gives again with what the log holds."""

    def __init__(self, codec: Codec, namespace: str) -> None:
        self._codec, self._namespace = codec, namespace

    def __call__(self, topic: str, partition: int, logged: bytes, again: bytes) -> None:
        """Raise NamespaceError unless two values are the same record, stamp excepted."""
        if logged == again:
            return
        rows = self._codec.decode(topic, [logged, again]).frame.drop("_row").to_dicts()
        if len(rows) == 2:
            differing = [name for name in rows[0] if name not in STAMP and rows[0][name] != rows[1][name]]
            if not differing:
                return
            name = differing[0]
            what = f"{name} was {rows[0][name]!r} and is {rows[1][name]!r} now"
        else:
            what = "it was another kind of record"
        raise NamespaceError(
            f"{topic} partition {partition} of namespace {self._namespace}: the source no longer gives the record that the log ends with "
            f"({what}); the source or its settings changed. Set them as they were, choose another FLOW_NAMESPACE, or clear it with "
            f"`flow reset {self._namespace}`"
        )


class PartitionLocks:
    """Keeps a second edge of this machine out of the same partitions."""

    def __init__(self, directory: Path, namespace: str, partitions: Sequence[int]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._files: list[IO[str]] = []
        for partition in partitions:
            handle = (directory / f"p{partition}.lock").open("w")
            self._files.append(handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self.release()
                raise NamespaceError(
                    f"partition {partition} of namespace {namespace} is fed by another edge on this machine; stop it, or split the work "
                    "with --partitions"
                ) from error

    def release(self) -> None:
        """Let others in."""
        for handle in self._files:
            handle.close()
        self._files.clear()
