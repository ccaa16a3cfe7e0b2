"""What a cancel needs of decided clusters: their packet's content, and each member's price, size, venue and flags.

Written once, at the tick that decides, into state rows by minutes of tick time; a minute is deleted by the first tick
that is CANCEL_WINDOW_MS past it. Nothing of it is held in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core import tail
from flowapp.core.clusters import lengths_of, starts_of
from flowapp.core.memory import Head
from flowapp.core.numbering import CONTRACTS
from flowapp.core.packets import MAX_MEMBERS, Decided, Members
from flowapp.core.tail import PackedTexts, reals

Integers = npt.NDArray[np.int64]

PREFIX = b"kept:"
MINUTE_MS = 60_000
ROW_BYTES = 400_000
"""A row takes clusters until it is this large; one cluster adds at most 300 kB."""
CLUSTER = np.dtype(
    [
        ("name", "<i8"), ("start_ts", "<i8"), ("end_ts", "<i8"), ("seq", "<i8"), ("ingest_ts", "<i8"), ("last_offset", "<i8"),
        ("count", "<i4"), ("kept", "<i4"), ("mask", "<u4"), ("late", "?"), ("parent", "?"), ("bid_size", "<i8"), ("ask_size", "<i8"),
        ("quote_ts", "<i8"), ("underlying_ts", "<i8"), ("bid", "<f8"), ("ask", "<f8"), ("underlying_bid", "<f8"),
        ("underlying_ask", "<f8"), ("multiplier", "<i8"), ("expires_at", "<i8"), ("strike", "<f8"),
    ]
)  # fmt: skip
MEMBER = np.dtype([("price", "<f8"), ("micro", "<i8"), ("flags", "<i8"), ("size", "<i4"), ("after", "<i4"), ("venue", "<i4")])
_LAST = {
    "bid_size": tail.BID_SIZE, "ask_size": tail.ASK_SIZE, "quote_ts": tail.QUOTE_TS, "underlying_ts": tail.UNDERLYING_TS,
    "bid": tail.BID, "ask": tail.ASK, "underlying_bid": tail.UNDERLYING_BID, "underlying_ask": tail.UNDERLYING_ASK,
    "multiplier": tail.MULTIPLIER, "expires_at": tail.EXPIRES_AT, "strike": tail.STRIKE,
}  # fmt: skip


def minute_of(w: int) -> int:
    """Return the minute of a tick."""
    return w // MINUTE_MS


def is_over(minute: int, last_w: int, cancel_window_ms: int) -> bool:
    """Tell whether no cancel can reach the clusters of a minute any more."""
    return last_w >= (minute + 1) * MINUTE_MS + cancel_window_ms


def row_key(minute: int, number: int) -> bytes:
    """Return the key of a minute's n-th row."""
    return PREFIX + b"%016x:%08x" % (minute, number)


def write(head: Head, rows: Sequence[tuple[int, bytes]], cancel_window_ms: int) -> tuple[Head, dict[bytes, bytes], list[bytes]]:
    """Put rows, each with its tick, under their minutes, and delete minutes that are over."""
    before, minutes = dict(head.kept), dict(head.kept)
    changed: dict[bytes, bytes] = {}
    for w, row in rows:
        minute = minute_of(w)
        number = minutes.get(minute, 0)
        changed[row_key(minute, number)] = row
        minutes[minute] = number + 1
    over = [minute for minute in minutes if is_over(minute, head.last_w, cancel_window_ms)]
    for minute in over:
        for number in range(before.get(minute, 0), minutes[minute]):
            del changed[row_key(minute, number)]
    deleted = [row_key(minute, number) for minute in over for number in range(before.get(minute, 0))]
    remaining = sorted((minute, count) for minute, count in minutes.items() if minute not in over)
    return msgspec.structs.replace(head, kept=remaining), changed, deleted


def kept_rows(members: Members, decided: Decided, ticks: Integers) -> list[tuple[int, bytes]]:
    """Return (tick, row) for decided clusters, in order; `ticks` is non-decreasing, a value per cluster."""
    ids, keep = members.ids, None
    if bool((members.count > MAX_MEMBERS).any()):
        keep = members.place < MAX_MEMBERS
        ids = ids.filter(pl.Series(keep))
    counts = np.minimum(members.count, MAX_MEMBERS)
    starts = np.concatenate(([0], np.cumsum(counts)))
    clusters, rows, texts = _clusters(members, decided, counts), _member_rows(members, keep), PackedTexts(ids)
    attributes = CONTRACTS.packed(members.attributes)
    weight = CLUSTER.itemsize + counts * MEMBER.itemsize + np.diff(texts.ends[starts])
    out = []
    for start, end in itertools.pairwise(_cuts(ticks, weight)):
        first, last = int(starts[start]), int(starts[end])
        body = (clusters[start:end].tobytes(), rows[first:last].tobytes(), *texts.part(first, last), attributes[start:end])
        out.append((int(ticks[start]), msgspec.msgpack.encode(body)))
    return out


def _cuts(ticks: Integers, weight: Integers) -> list[int]:
    """Cut between ticks, and within a tick by size, counted from the tick's own start."""
    tick_starts = starts_of(ticks)
    before = np.cumsum(weight) - weight
    within = (before - np.repeat(before[tick_starts], lengths_of(tick_starts, ticks.size))) // ROW_BYTES
    return [*np.union1d(tick_starts, starts_of(within)).tolist(), ticks.size]


def _clusters(members: Members, decided: Decided, kept: Integers) -> npt.NDArray[np.void]:
    last = members.numbers[:, members.ends - 1]
    out = np.zeros(decided.name.size, CLUSTER)
    out["name"], out["mask"], out["late"], out["parent"] = decided.name, decided.mask, decided.late, decided.parent
    out["start_ts"] = members.numbers[tail.SOURCE_TS, members.starts]
    for name, field in (("end_ts", tail.SOURCE_TS), ("seq", tail.SEQ), ("ingest_ts", tail.INGEST_TS)):
        out[name] = members.newest(field)
    out["last_offset"], out["count"], out["kept"] = last[tail.OFFSET], members.count, kept
    for name, field in _LAST.items():
        out[name] = reals(last, field) if CLUSTER[name].kind == "f" else last[field]
    return out


def _member_rows(members: Members, keep: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.void]:
    numbers = members.numbers if keep is None else members.numbers[:, keep]
    out = np.zeros(numbers.shape[1], MEMBER)
    out["price"] = reals(numbers, tail.PRICE)
    out["venue"] = numbers[tail.VENUE]
    out["micro"], out["flags"], out["size"] = numbers[tail.MICRO], numbers[tail.FLAGS], numbers[tail.SIZE]
    out["after"] = np.minimum(numbers[tail.OFFSET] - numbers[tail.CLUSTER], np.iinfo(np.int32).max)
    return out
