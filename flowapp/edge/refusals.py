"""Rows of a source that cannot be records: dead letters with their bytes."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from flowapp import topics
from flowapp.edge.adapters.base import Refusal
from flowapp.edge.rawlog import RawLog
from flowapp.engine.producer import Producer
from flowapp.records import schemas
from flowapp.records.codec import Codec
from flowapp.records.identity import source_dead_letter_id

STAGE = "edge"


class Refusals:
    """Writes a source's dead letters, each once; of several edges the one that owns the source's partition does.

    Args:
        newest: time to write under, ms; dead letters have no event time of their own.
    """

    def __init__(
        self, namespace: str, codec: Codec, producer: Producer, log: RawLog, partitions: int, mine: Sequence[int], run: str
    ) -> None:
        self._topic = topics.full_name(namespace, topics.DEAD_LETTERS)
        self._codec, self._producer, self._log = codec, producer, log
        self._partitions, self._mine, self._run = partitions, frozenset(mine), run
        self._known: dict[str, set[str]] = {}
        self.count = 0

    def write(self, source: str, digest: str, refusals: Sequence[Refusal], ts: int) -> None:
        """Write what is not in the log yet."""
        self.count += len(refusals)
        partition = topics.partition_of(source, self._partitions)
        if not refusals or partition not in self._mine:
            return
        known = self._known_of(source, partition)
        rows = [
            {
                "id": source_dead_letter_id(source, digest, refusal.row), "stage": STAGE, "reason": refusal.reason, "error": refusal.error,
                "source": source, "row": refusal.row, "run": self._run, "raw": refusal.raw,
            }
            for refusal in refusals
        ]  # fmt: skip
        fresh = [row for row in rows if row["id"] not in known]
        known.update(str(row["id"]) for row in fresh)
        frame = pl.DataFrame(fresh, schema=schemas.frame_schema("DeadLetter"))
        values = self._codec.encode("DeadLetter", frame)
        keys = [source.encode()] * len(values)
        self._producer.send(self._topic, values, keys=keys, partitions=[partition] * len(values), timestamps=[max(ts, 0)] * len(values))

    def _known_of(self, source: str, partition: int) -> set[str]:
        if source not in self._known:
            values = self._log.tails(topics.DEAD_LETTERS, [partition], None)[partition]
            frame = self._codec.decode(topics.DEAD_LETTERS, values).frame
            self._known[source] = set(frame.filter(pl.col("source") == source)["id"])
        return self._known[source]
