"""Contract packets: the features of reference 5.5 and 5.6 over the members of decided clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core import prints, tail
from flowapp.core.clusters import lengths_of, starts_of
from flowapp.core.memory import Going
from flowapp.core.money import STANDARD_MULTIPLIER, dollars, rounded_dollars
from flowapp.core.numbering import CONTRACTS
from flowapp.core.placement import AA, BB, MID, SIDES, A, B
from flowapp.core.rules import OptionRules
from flowapp.core.signal import reason_lists
from flowapp.core.tail import NO_INTEGER, Tail, reals
from flowapp.records.identity import late_packet_id, packet_id, round2_array, round4_array
from flowapp.records.schemas import frame_schema

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MAX_MEMBERS = 1000
"""Member ids a packet lists, and members whose cancel can reach it; beyond, counts and the origin range stand for them."""
SCHEMA = frame_schema("FlowPacket")
_EMPTY = pl.DataFrame(schema=SCHEMA)
# What baselines and structures will fill.
_LATER = tuple(
    name for name in SCHEMA if name.startswith(("structure_", "roll_", "baseline_bucket", "total_premium_", "total_size_", "nbbo_spread_"))
)
_WITHOUT_NULLS = pl.when(pl.col("number") != NO_INTEGER).then("number")
_USUAL_COUNT = 128
_USUAL_COUNTS = np.arange(_USUAL_COUNT)
_RATIOS = round4_array(np.divide.outer(_USUAL_COUNTS, np.maximum(_USUAL_COUNTS, 1)).ravel()).reshape(_USUAL_COUNT, -1)
_MAX_VENUE_BITS = 63
_LEAST_CONSTANTS = 256


@dataclass(frozen=True)
class Decided:
    """Clusters whose time has come, in the order of their decision."""

    name: Integers
    late: Flags
    mask: npt.NDArray[np.uint32]
    parent: Flags
    """The verdict was passed on the cluster, no member had passed."""
    partition: Integers
    tick_offset: Integers
    """Origin: the tick that decided."""

    @classmethod
    def of(cls, parts: Sequence[tuple[Going, int, Integers]]) -> Decided:
        """Put clusters of several partitions together, each part with its partition and the ticks that decided."""
        columns = [
            (going.name, going.late, going.mask, going.parent, np.full(going.name.size, partition, np.int64), ticks)
            for going, partition, ticks in parts
        ]
        return cls(*(np.concatenate(column) for column in zip(*columns, strict=True)))


@dataclass(frozen=True)
class Members:
    """Rows of the tail that belong to decided clusters, brought together, in arrival order within a cluster."""

    numbers: Integers
    ids: pl.Series
    starts: Integers
    rank: Integers
    """Place of the print's cluster."""

    @classmethod
    def of(cls, parts: Sequence[tuple[Tail, Integers]]) -> Members:
        """Gather the members of named clusters, partition by partition."""
        numbers, ids, ranks, base = [], [], [], 0
        for rows, names in parts:
            rank = _rank(rows.numbers[tail.CLUSTER], names)
            mine = np.flatnonzero(rank >= 0)
            bits = int(rank.size).bit_length()
            key = (rank[mine] << bits) | mine
            key.sort()
            mine = key & ((1 << bits) - 1)
            numbers.append(rows.numbers.take(mine, axis=1))
            ids.append(rows.ids[mine]["trace_id"])
            ranks.append((key >> bits) + base)
            base += names.size
        rank = np.concatenate(ranks)
        return cls(np.concatenate(numbers, axis=1), pl.concat(ids), starts_of(rank), rank)

    @cached_property
    def count(self) -> Integers:
        return lengths_of(self.starts, self.rank.size)

    @cached_property
    def ends(self) -> Integers:
        return np.append(self.starts[1:], self.rank.size)

    @property
    def place(self) -> Integers:
        """Place of each row within its cluster, from 0."""
        return np.arange(self.rank.size) - self.starts[self.rank]

    @property
    def attributes(self) -> Integers:
        """Number of the opening print's attributes, per cluster."""
        numbers: Integers = self.numbers[tail.ATTRIBUTE, self.starts]
        return numbers

    def total(self, values: Integers | Flags) -> Integers:
        """Sum per cluster."""
        sums: Integers = np.add.reduceat(values.astype(np.int64, copy=False), self.starts)
        return sums

    def newest(self, field: int) -> Integers:
        """Largest per cluster."""
        largest: Integers = np.maximum.reduceat(self.numbers[field], self.starts)
        return largest


def _rank(cluster: Integers, names: Integers) -> Integers:
    """Return the place in `names` of every row's cluster, -1 where it is not among them."""
    base = int(names.min())
    span = int(names.max()) - base + 1
    if span > 64 * (cluster.size + names.size):
        by_name = np.argsort(names)
        place = np.minimum(np.searchsorted(names[by_name], cluster), names.size - 1)
        return np.where(names[by_name][place] == cluster, by_name[place], -1)
    table = np.full(span + 1, -1, np.int64)
    table[names - base] = np.arange(names.size)
    return table[np.clip(cluster - base, -1, span)]


def packet_frame(members: Members | None, decided: Decided | None, rules: OptionRules) -> pl.DataFrame:
    """Return the packets of decided clusters."""
    if members is None or decided is None:
        return _EMPTY
    height = decided.name.size
    first, last = members.numbers[:, members.starts], members.numbers[:, members.ends - 1]
    end_ts = members.newest(tail.SOURCE_TS)
    totals, premiums = _totals(members, rules)
    places, ratios = _placements(members)
    qualities, quotes = _quotes(last, end_ts, rules)
    integers = {
        "start_ts": first[tail.SOURCE_TS],
        "end_ts": end_ts,
        "ingest_ts": members.newest(tail.INGEST_TS),
        "seq": members.newest(tail.SEQ),
        "origin_partition": decided.partition,
        "origin_offset": decided.tick_offset,
        "member_first_offset": first[tail.OFFSET],
        "member_last_offset": last[tail.OFFSET],
        "multiplier": first[tail.MULTIPLIER],
        "expires_at": first[tail.EXPIRES_AT],
        **totals,
        **places,
        **qualities,
    }
    numbers = {
        "strike": reals(first, tail.STRIKE),
        "first_price": reals(first, tail.PRICE),
        "last_price": reals(last, tail.PRICE),
        **premiums,
        **ratios,
        **quotes,
    }
    columns = [*_integer_columns(integers), *_real_columns(numbers), _is_etf(first), pl.Series("late", decided.late)]
    frame = pl.DataFrame([*columns, *CONTRACTS.texts(members.attributes)])
    ids = frame.select(_ids(bool(decided.late.any()))).to_series()
    copies = [frame["start_ts"].alias("source_ts"), frame["count"].alias("member_count"), ids.alias("id"), ids.alias("trace_id")]
    lists = [_member_ids(members).alias("members"), reason_lists(decided.mask, decided.parent).alias("verdict_reasons")]
    made = frame.hstack([*copies, *lists])
    constants = _constants(rules.rules.name, rules.config, rules.window_ms, max(height, _LEAST_CONSTANTS).bit_length())
    return made.hstack(constants[:height])[SCHEMA.names()]


def _integer_columns(columns: dict[str, Integers]) -> list[pl.Series]:
    """One array for all, cut afterwards; NO_INTEGER becomes null."""
    flat = np.concatenate(list(columns.values()))
    series = pl.Series("number", flat)
    if bool((flat == NO_INTEGER).any()):
        series = series.to_frame().select(_WITHOUT_NULLS).to_series()
    return _cut(series, list(columns))


def _real_columns(columns: dict[str, Floats]) -> list[pl.Series]:
    return _cut(pl.Series(np.concatenate(list(columns.values())), nan_to_null=True), list(columns))


def _cut(series: pl.Series, names: list[str]) -> list[pl.Series]:
    height = len(series) // len(names)
    return [series.slice(place * height, height).alias(name) for place, name in enumerate(names)]


@lru_cache(maxsize=16)
def _constants(rules: str, config: str, window_ms: int, size: int) -> pl.DataFrame:
    """Columns that are the same in every contract packet, 2^size rows of them."""
    values: dict[str, Any] = dict.fromkeys(_LATER)
    values |= {"packet_kind": "contract", "revision": 0, "final": True, "retracted": False}
    values |= {"window_ms": window_ms, "rules": rules, "config": config}
    return pl.DataFrame([pl.Series(name, [value], SCHEMA[name]).new_from_index(0, 1 << size) for name, value in values.items()])


@cache
def _ids(any_late: bool) -> pl.Expr:
    parts = (pl.col("option_contract_id"), pl.col("start_ts"), pl.col("end_ts"))
    usual = packet_id(*parts)
    return pl.when("late").then(late_packet_id(*parts, pl.col("origin_offset"))).otherwise(usual) if any_late else usual


def _member_ids(members: Members) -> pl.Series:
    ids = members.ids
    if members.starts.size == members.rank.size:
        return ids.reshape((members.rank.size, 1)).arr.to_list()
    by_rank = pl.DataFrame({"rank": pl.Series(members.rank).set_sorted(), "id": ids})
    if bool((members.count > MAX_MEMBERS).any()):
        by_rank = by_rank.filter(pl.Series(members.place < MAX_MEMBERS)).with_columns(pl.col("rank").set_sorted())
    return by_rank.group_by("rank", maintain_order=True).agg("id")["id"]


def _is_etf(first: Integers) -> pl.Series:
    flags = first[tail.FLAGS]
    is_etf = pl.Series("is_etf", (flags & prints.ETF) != 0)
    known = (flags & prints.ETF_KNOWN) != 0
    return is_etf if known.all() else pl.select(pl.when(pl.Series(known)).then(is_etf).alias("is_etf")).to_series()


def _totals(members: Members, rules: OptionRules) -> tuple[dict[str, Integers], dict[str, Floats]]:
    flags, size, micro = members.numbers[tail.FLAGS], members.numbers[tail.SIZE], members.numbers[tail.MICRO]
    signed = (flags & prints.SIGNED) != 0
    total = members.total(micro)
    integers = {
        "count": members.count,
        "total_size": members.total(size),
        "flagged_legs": members.total((flags & prints.LEG) != 0),
        "weak_count": members.total(signed & ((flags & prints.WEAK) != 0)),
        "unsigned_count": members.total(~signed),
        "sweep_count": members.total((flags & prints.SWEEP) != 0),
        "pass_count": members.total((flags & prints.PASS) != 0),
        "venue_count": _distinct_venues(members),
    }
    numbers = {"total_premium": rounded_dollars(total, 4), "total_notional": rounded_dollars(total, 2)}
    if not rules.rules.premium_in_dollars:
        numbers["total_notional"] = round2_array(dollars(total) * STANDARD_MULTIPLIER)
    for prefix, bit in (("alert", prints.ALERT), ("baseline", prints.BASELINE)):
        chosen = (flags & bit) != 0
        integers[f"{prefix}_count"] = members.total(chosen)
        integers[f"{prefix}_size"] = members.total(size * chosen)
        numbers[f"{prefix}_premium"] = rounded_dollars(members.total(micro * chosen), 4)
    return integers, numbers


def _distinct_venues(members: Members) -> Integers:
    venues = members.numbers[tail.VENUE]
    wide = int(venues.max()) + 1
    if wide <= _MAX_VENUE_BITS:
        return np.bitwise_count(np.bitwise_or.reduceat(np.int64(1) << venues, members.starts)).astype(np.int64)
    distinct = np.unique(members.rank * wide + venues)
    return np.bincount(distinct // wide, minlength=members.starts.size).astype(np.int64)


def _placements(members: Members) -> tuple[dict[str, Integers], dict[str, Floats]]:
    flags = members.numbers[tail.FLAGS]
    wide = len(SIDES) + 1
    side = np.where((flags & prints.SIGNED) != 0, flags >> prints.SIDE_SHIFT & prints.SIDE_MASK, len(SIDES))
    counts = np.bincount(members.rank * wide + side, minlength=members.starts.size * wide)
    by_side = np.ascontiguousarray(counts.reshape(-1, wide).T).astype(np.int64, copy=False)
    buys, sells, inside = by_side[AA] + by_side[A], by_side[BB] + by_side[B], by_side[MID]
    aggressive = buys + sells
    placed = aggressive + inside
    ratios = {
        "nbbo_coverage_ratio": _ratio(placed, members.count),
        "nbbo_aggressive_buy_ratio": _ratio(buys, aggressive),
        "nbbo_aggressive_sell_ratio": _ratio(sells, aggressive),
        "nbbo_inside_ratio": _ratio(inside, placed),
        "nbbo_aggressive_ratio": _ratio(aggressive, placed),
    }
    return {f"nbbo_{name.lower()}_count": by_side[code] for code, name in enumerate(SIDES)}, ratios


def _ratio(part: Integers, whole: Integers) -> Floats:
    """Return part / whole to 4 decimals, 0 for nothing of nothing; usual ones are looked up."""
    if not whole.size or int(whole.max()) >= _RATIOS.shape[1]:
        return round4_array(part / np.maximum(whole, 1))
    ratios: Floats = _RATIOS[part, whole]
    return ratios


def _quotes(last: Integers, end_ts: Integers, rules: OptionRules) -> tuple[dict[str, Integers], dict[str, Floats]]:
    """The last member's frozen quotes, where they are fresh, and their join quality."""
    flags, ts = last[tail.FLAGS], last[tail.QUOTE_TS]
    quoted = (flags & prints.QUOTED) != 0
    age = np.where(quoted & (ts != NO_INTEGER), np.abs(end_ts - ts), NO_INTEGER)
    stale = (flags & prints.AGED) != 0 if rules.rules.quote_age_by_source else age > rules.packet_max_age_ms
    fresh = quoted & ~stale
    bid, ask, ts = reals(last, tail.UNDERLYING_BID), reals(last, tail.UNDERLYING_ASK), last[tail.UNDERLYING_TS]
    under_quoted = (ts != NO_INTEGER) & np.isfinite(bid) & np.isfinite(ask) & (ask > 0)
    under_age = np.where(under_quoted, np.abs(end_ts - ts), NO_INTEGER)
    under_stale = under_age > rules.equity_max_age_ms
    under_fresh = under_quoted & ~under_stale
    integers = {
        "nbbo_missing": (~quoted).astype(np.int64),
        "nbbo_age_ms": age,
        "nbbo_stale": np.where(quoted, stale, NO_INTEGER),
        "nbbo_bid_size": np.where(fresh, last[tail.BID_SIZE], NO_INTEGER),
        "nbbo_ask_size": np.where(fresh, last[tail.ASK_SIZE], NO_INTEGER),
        "underlying_quote_missing": (~under_quoted).astype(np.int64),
        "underlying_quote_age_ms": under_age,
        "underlying_quote_stale": np.where(under_quoted, under_stale, NO_INTEGER),
        "underlying_quote_ts": np.where(under_fresh, ts, NO_INTEGER),
    }
    numbers = _quote("nbbo", reals(last, tail.BID), reals(last, tail.ASK), fresh) | _quote("underlying", bid, ask, under_fresh)
    return integers, numbers


def _quote(prefix: str, bid: Floats, ask: Floats, fresh: Flags) -> dict[str, Floats]:
    bid, ask = np.where(fresh, bid, np.nan), np.where(fresh, ask, np.nan)
    with np.errstate(invalid="ignore"):
        mid, spread = round4_array((bid + ask) / 2), round4_array(ask - bid)
    return {f"{prefix}_bid": bid, f"{prefix}_ask": ask, f"{prefix}_mid": mid, f"{prefix}_spread": spread}
