"""What a cancel needs of decided clusters: their packet's content, and each member's price, size, venue and flags.

Written once, at the tick that decides, into state rows by minutes of tick time; a minute is deleted by the first tick
that is CANCEL_WINDOW_MS past it. Nothing of it is held in memory.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from flowapp.core import tail
from flowapp.core.packets import MAX_MEMBERS, Decided, Members
from flowapp.core.tail import pack_texts

Integers = npt.NDArray[np.int64]

PREFIX = b"kept:"
BUCKET_MS = 60_000
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
MEMBER = np.dtype([("price", "<f8"), ("micro", "<i8"), ("flags", "<i8"), ("size", "<i4"), ("after", "<i4")])
_LAST = {
    "bid_size": tail.BID_SIZE, "ask_size": tail.ASK_SIZE, "quote_ts": tail.QUOTE_TS, "underlying_ts": tail.UNDERLYING_TS,
    "bid": tail.BID, "ask": tail.ASK, "underlying_bid": tail.UNDERLYING_BID, "underlying_ask": tail.UNDERLYING_ASK,
    "multiplier": tail.MULTIPLIER, "expires_at": tail.EXPIRES_AT, "strike": tail.STRIKE,
}  # fmt: skip


def bucket_of(w: int) -> int:
    """Return the minute of a tick."""
    return w // BUCKET_MS


def is_over(bucket: int, last_w: int, cancel_window_ms: int) -> bool:
    """Tell whether no cancel can reach the clusters of a minute any more."""
    return last_w >= (bucket + 1) * BUCKET_MS + cancel_window_ms


def row_key(bucket: int, number: int) -> bytes:
    """Return the key of a minute's n-th row."""
    return PREFIX + b"%016x:%08x" % (bucket, number)


def kept_rows(members: Members, decided: Decided, ticks: Integers) -> list[tuple[int, bytes]]:
    """Return (tick, row) for decided clusters, in order; `ticks` is non-decreasing, a value per cluster."""
    keep = members.place < MAX_MEMBERS
    starts = np.concatenate(([0], np.cumsum(np.bincount(members.rank[keep], minlength=decided.name.size))))
    clusters = _clusters(members, decided, np.diff(starts))
    rows = _member_rows(members, keep)
    texts = members.texts.filter(keep) if not keep.all() else members.texts
    weight = CLUSTER.itemsize + np.diff(np.append(0, np.cumsum(texts["trace_id"].str.len_bytes().to_numpy() + MEMBER.itemsize))[starts])
    cuts = _cuts(ticks, weight)
    member_cuts = starts[cuts].tolist()
    parts = [pack_texts(texts[name], member_cuts) for name in tail.MEMBER_TEXTS]
    openers = members.texts[members.starts]
    parts += [pack_texts(openers[name], cuts) for name in tail.OPENER_TEXTS]
    out = []
    for place, (start, end) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        body = (clusters[start:end].tobytes(), rows[member_cuts[place] : member_cuts[place + 1]].tobytes(), [part[place] for part in parts])
        out.append((int(ticks[start]), msgspec.msgpack.encode(body)))
    return out


def _cuts(ticks: Integers, weight: Integers) -> list[int]:
    """Cut between ticks, and within a tick by size, counted from the tick's own start."""
    tick_starts = np.flatnonzero(np.diff(ticks, prepend=ticks[0] - 1))
    before = np.cumsum(weight) - weight
    within = (before - np.repeat(before[tick_starts], np.diff(tick_starts, append=ticks.size))) // ROW_BYTES
    starts = np.flatnonzero((np.diff(ticks, prepend=ticks[0] - 1) != 0) | (np.diff(within, prepend=0) != 0))
    return [*starts.tolist(), ticks.size]


def _clusters(members: Members, decided: Decided, kept: Integers) -> npt.NDArray[np.void]:
    first, last = members.starts, members.ends - 1
    numbers = members.numbers
    out = np.zeros(decided.name.size, CLUSTER)
    out["name"], out["mask"], out["late"], out["parent"] = decided.name, decided.mask, decided.late, decided.parent
    out["start_ts"] = numbers[tail.SOURCE_TS, first]
    out["end_ts"] = np.maximum.reduceat(numbers[tail.SOURCE_TS], first)
    out["seq"] = np.maximum.reduceat(numbers[tail.SEQ], first)
    out["ingest_ts"] = np.maximum.reduceat(numbers[tail.INGEST_TS], first)
    out["last_offset"], out["count"], out["kept"] = numbers[tail.OFFSET, last], members.ends - first, kept
    for name, field in _LAST.items():
        values = numbers[field, last]
        out[name] = values.view(np.float64) if CLUSTER[name].kind == "f" else values
    return out


def _member_rows(members: Members, keep: npt.NDArray[np.bool_]) -> npt.NDArray[np.void]:
    numbers = members.numbers
    out = np.zeros(members.rank.size, MEMBER)
    out["price"] = numbers[tail.PRICE].view(np.float64)
    out["micro"], out["flags"], out["size"] = numbers[tail.MICRO], numbers[tail.FLAGS], numbers[tail.SIZE]
    out["after"] = np.minimum(numbers[tail.OFFSET] - numbers[tail.CLUSTER], np.iinfo(np.int32).max)
    return out[keep]
