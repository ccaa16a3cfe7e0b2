"""A small fold with everything the engine must carry: rows that change and go, outputs on records and on ticks, errors."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from flowapp import topics
from flowapp.core.fold import ERROR, OFFSET, PARTITION, Result, State
from flowapp.records.codec import ROW, Codec, Decoded, Reject

RECORD = np.dtype([("key", "<i8"), ("amount", "<i8"), ("source_ts", "<i8"), ("w", "<i8")])
NO_TICK = -1
POISON = 13_000_013
OUTPUTS = {"options": (topics.OPTIONS_SIGNAL, topics.FLOW_PACKETS), "equities": (topics.CANDLES, topics.DARK_INFERRED)}
COUNT_SUM = struct.Struct("<qq")


def encode(key: int, amount: int, source_ts: int, w: int = NO_TICK) -> bytes:
    """Encode one record: an amount under a key, or a tick."""
    return struct.pack("<qqqq", key, amount, source_ts, w)


class TallyCodec:
    """Fixed-width records in, JSON lines out, dead letters as the product encodes them."""

    def __init__(self, dead_letters: Codec) -> None:
        self._dead_letters = dead_letters

    def decode(self, topic: str, values: Sequence[bytes | None]) -> Decoded:
        """Decode records; what has another length is refused."""
        good = [row for row, value in enumerate(values) if value is not None and len(value) == RECORD.itemsize]
        rejects = [Reject(row, "bad_record", "length", None) for row in range(len(values))] if len(good) < len(values) else []
        taken = set(good) if rejects else set()
        records = np.frombuffer(b"".join(values[row] or b"" for row in good), RECORD)
        frame = pl.DataFrame({name: records[name] for name in RECORD.names or ()}).select(
            pl.format("U{}", "key").alias("underlying_id"),
            "amount",
            "source_ts",
            pl.when(pl.col("w") != NO_TICK).then("w").alias("w"),
            pl.Series(ROW, good, pl.Int64),
        )
        return Decoded(frame, [reject for reject in rejects if reject.row not in taken])

    def encode(self, name: str, frame: pl.DataFrame) -> list[bytes]:
        """Encode rows as JSON."""
        if name == "DeadLetter":
            return self._dead_letters.encode(name, frame)
        return [row.encode() for row in frame.select(pl.struct(pl.all()).struct.json_encode()).to_series()]


@dataclass
class _Memory:
    """Sums by key, and the keys that got a record since the last tick, in order."""

    sums: dict[str, list[int]]
    pending: dict[str, None]


class TallyFold:
    """Counts and sums amounts by key; every tenth amount is passed on, every tick reports the keys that moved."""

    def __init__(self, name: str = "options", config: str = "a", version: int = 1) -> None:
        self.name = name
        self.input_topic = topics.AGENT_INPUTS[name]
        self.version = version
        self.rules = "mock"
        self.config = config

    def judge(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Refuse negative amounts."""
        negative = pl.when(pl.col("amount") < 0).then(pl.format("amount was {}", "amount"))
        return frame.with_columns(negative.alias(ERROR))

    def apply(self, frame: pl.DataFrame, state: State) -> Result:
        """Fold row by row."""
        memory = state.memory
        if not isinstance(memory, _Memory):
            pending = [key.decode()[2:] for key, _ in state.scan(b"o/")]
            memory = state.memory = _Memory({}, dict.fromkeys(pending))
        passed: list[tuple[object, ...]] = []
        reports: list[tuple[object, ...]] = []
        changed: dict[bytes, bytes | None] = {}
        columns = ("underlying_id", "amount", "source_ts", "w", PARTITION, OFFSET)
        for key, amount, moment, w, partition, offset in frame.select(columns).iter_rows():
            if w is not None:
                for name in sorted(memory.pending):
                    reports.append((name, w, *self._sums(memory, state, name), partition, offset))
                    changed[b"o/" + name.encode()] = None
                memory.pending.clear()
                continue
            if amount == POISON:
                raise ValueError("poison")
            sums = self._sums(memory, state, key)
            sums[0] += 1
            sums[1] += amount
            changed[b"k/" + key.encode()] = COUNT_SUM.pack(*sums)
            if key not in memory.pending:
                memory.pending[key] = None
                changed[b"o/" + key.encode()] = b""
            if amount % 10 == 0:
                passed.append((key, moment, amount, sums[1], partition, offset))
        signal, report = OUTPUTS[self.name]
        outputs = {
            signal: _frame(passed, ("underlying_id", "source_ts", "amount", "sum", "partition", "offset")),
            report: _frame(reports, ("underlying_id", "source_ts", "count", "sum", "partition", "offset")),
        }
        kept = {key: row for key, row in changed.items() if row is not None}
        return Result(outputs, kept, [key for key, row in changed.items() if row is None])

    @staticmethod
    def _sums(memory: _Memory, state: State, key: str) -> list[int]:
        found = memory.sums.get(key)
        if found is None:
            row = state.get(b"k/" + key.encode())
            found = memory.sums[key] = [0, 0] if row is None else list(COUNT_SUM.unpack(row))
        return found


def _frame(rows: list[tuple[object, ...]], names: Sequence[str]) -> pl.DataFrame:
    schema = {name: pl.String if name == "underlying_id" else pl.Int64 for name in names}
    return pl.DataFrame(rows, schema=schema, orient="row")
