"""Contract packets: the features of reference 5.5 and 5.6 over the members of decided clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from flowapp.core import prints, tail
from flowapp.core.money import STANDARD_MULTIPLIER, dollars
from flowapp.core.placement import AA, BB, MID, SIDES, A, B
from flowapp.core.rules import OptionRules
from flowapp.core.signal import reason_lists
from flowapp.core.tail import NO_INTEGER, Tail
from flowapp.records.identity import late_packet_id, packet_id, round2_array, round4_array
from flowapp.records.schemas import frame_schema

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MAX_MEMBERS = 1000
"""Member ids a packet lists, and members whose cancel can reach it; beyond, counts and the origin range stand for them."""
SCHEMA = frame_schema("FlowPacket")


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


@dataclass(frozen=True)
class Members:
    """Rows of the tail that belong to decided clusters, brought together, in arrival order within a cluster."""

    numbers: Integers
    texts: pl.DataFrame
    starts: Integers
    rank: Integers
    """Place of the row's cluster."""

    @classmethod
    def of(cls, rows: Tail, names: Integers) -> Members:
        by_name = np.argsort(names)
        ascending = names[by_name]
        place = np.minimum(np.searchsorted(ascending, rows.numbers[tail.CLUSTER]), names.size - 1)
        mine = np.flatnonzero(ascending[place] == rows.numbers[tail.CLUSTER])
        rank = by_name[place[mine]]
        order = np.argsort(rank, kind="stable")
        mine, rank = mine[order], rank[order]
        starts = np.flatnonzero(np.diff(rank, prepend=-1))
        return cls(rows.numbers[:, mine], rows.texts[mine], starts, rank)

    @property
    def ends(self) -> Integers:
        return np.append(self.starts[1:], self.rank.size)

    @property
    def place(self) -> Integers:
        """Place of each row within its cluster, from 0."""
        return np.arange(self.rank.size) - self.starts[self.rank]

    def total(self, values: npt.NDArray[np.integer | np.bool_]) -> Integers:
        """Sum per cluster."""
        return np.add.reduceat(values.astype(np.int64, copy=False), self.starts)


def packet_frame(members: Members, decided: Decided, rules: OptionRules) -> pl.DataFrame:
    """Return the packets of decided clusters."""
    columns = {
        **_identity(members, decided),
        **_contract(members),
        **_totals(members, rules),
        **_placements(members),
        **_quotes(members, rules),
        "verdict_reasons": reason_lists(decided.mask, decided.parent.tolist()),
        "window_ms": pl.repeat(rules.window_ms, decided.name.size, dtype=pl.Int64, eager=True),
    }
    height = decided.name.size
    constants = {
        "packet_kind": "contract",
        "revision": 0,
        "final": True,
        "retracted": False,
        "rules": rules.rules.name,
        "config": rules.config,
    }
    ready = [
        _column(name, kind, columns[name])
        if name in columns
        else pl.repeat(constants.get(name), height, dtype=kind, eager=True).alias(name)
        for name, kind in SCHEMA.items()
    ]
    return pl.DataFrame(ready)


def _column(name: str, kind: pl.DataType, values: npt.NDArray[np.generic] | pl.Series) -> pl.Series:
    """Integers that are NO_INTEGER and reals that are NaN are null."""
    if isinstance(values, pl.Series):
        return values.alias(name)
    series = pl.Series(name, values)
    if values.dtype == np.int64 and bool((values == NO_INTEGER).any()):
        return series.set(series == NO_INTEGER, None)
    return series.fill_nan(None) if values.dtype == np.float64 else series


def _identity(members: Members, decided: Decided) -> dict[str, npt.NDArray[np.generic] | pl.Series]:
    numbers, first = members.numbers, members.starts
    start_ts = numbers[tail.SOURCE_TS, first]
    end_ts = np.maximum.reduceat(numbers[tail.SOURCE_TS], first)
    named = pl.DataFrame(
        {
            "contract": members.texts["option_contract_id"].gather(first),
            "start": start_ts,
            "end": end_ts,
            "late": decided.late,
            "tick": decided.tick_offset,
        }
    )
    parts = (pl.col("contract"), pl.col("start"), pl.col("end"))
    late_id = late_packet_id(*parts, pl.col("tick"))  # type: ignore[arg-type]
    ids = packet_id(*parts) if not decided.late.any() else pl.when("late").then(late_id).otherwise(packet_id(*parts))  # type: ignore[arg-type]
    identity = named.select(ids.alias("id")).to_series()
    return {
        "source_ts": start_ts,
        "ingest_ts": np.maximum.reduceat(numbers[tail.INGEST_TS], first),
        "seq": np.maximum.reduceat(numbers[tail.SEQ], first),
        "trace_id": identity,
        "id": identity,
        "origin_partition": decided.partition,
        "origin_offset": decided.tick_offset,
        "late": pl.Series(decided.late),
        "members": _member_ids(members),
        "member_first_offset": numbers[tail.OFFSET, first],
        "member_last_offset": numbers[tail.OFFSET, members.ends - 1],
        "option_contract_id": named["contract"],
        "start_ts": start_ts,
        "end_ts": end_ts,
    }


def _member_ids(members: Members) -> pl.Series:
    ids = pl.DataFrame({"rank": pl.Series(members.rank).set_sorted(), "id": members.texts["trace_id"]})
    if bool((np.diff(members.starts, append=members.rank.size) > MAX_MEMBERS).any()):
        ids = ids.filter(pl.Series(members.place < MAX_MEMBERS)).with_columns(pl.col("rank").set_sorted())
    return ids.group_by("rank", maintain_order=True).agg("id")["id"]


def _contract(members: Members) -> dict[str, npt.NDArray[np.generic] | pl.Series]:
    first = members.starts
    flags = members.numbers[tail.FLAGS, first]
    is_etf = pl.Series((flags & prints.ETF) != 0)
    unknown = (flags & prints.ETF_KNOWN) == 0
    return {
        **{name: members.texts[name].gather(first) for name in tail.OPENER_TEXTS if name != "option_contract_id"},
        "strike": members.numbers[tail.STRIKE, first].view(np.float64),
        "multiplier": members.numbers[tail.MULTIPLIER, first],
        "expires_at": members.numbers[tail.EXPIRES_AT, first],
        "is_etf": is_etf.set(pl.Series(unknown), None) if unknown.any() else is_etf,
    }


def _totals(members: Members, rules: OptionRules) -> dict[str, npt.NDArray[np.generic] | pl.Series]:
    flags, size, micro = members.numbers[tail.FLAGS], members.numbers[tail.SIZE], members.numbers[tail.MICRO]
    columns: dict[str, npt.NDArray[np.generic] | pl.Series] = {}
    for prefix, chosen in (("alert", flags & prints.ALERT != 0), ("baseline", flags & prints.BASELINE != 0)):
        columns[f"{prefix}_count"] = members.total(chosen)
        columns[f"{prefix}_size"] = members.total(size * chosen)
        columns[f"{prefix}_premium"] = round4_array(dollars(members.total(micro * chosen)))
    count, total = members.ends - members.starts, members.total(micro)
    shares = 1 if rules.rules.premium_in_dollars else STANDARD_MULTIPLIER
    signed = flags & prints.SIGNED != 0
    prices = members.numbers[tail.PRICE].view(np.float64)
    return columns | {
        "count": count,
        "member_count": count,
        "total_size": members.total(size),
        "total_premium": round4_array(dollars(total)),
        "total_notional": round2_array(dollars(total) * shares),
        "flagged_legs": members.total(flags & prints.LEG != 0),
        "weak_count": members.total(signed & (flags & prints.WEAK != 0)),
        "unsigned_count": members.total(~signed),
        "sweep_count": members.total(flags & prints.SWEEP != 0),
        "pass_count": members.total(flags & prints.PASS != 0),
        "venue_count": _distinct_venues(members),
        "first_price": prices[members.starts],
        "last_price": prices[members.ends - 1],
    }


def _distinct_venues(members: Members) -> Integers:
    venues = members.texts["exchange"].cast(pl.Categorical).to_physical().cast(pl.Int64).to_numpy()
    wide = int(venues.max()) + 1
    distinct = np.unique(members.rank * wide + venues)
    return np.bincount(distinct // wide, minlength=members.starts.size).astype(np.int64)


def _placements(members: Members) -> dict[str, npt.NDArray[np.generic] | pl.Series]:
    flags = members.numbers[tail.FLAGS]
    side = np.where(flags & prints.SIGNED != 0, flags >> prints.SIDE_SHIFT & prints.SIDE_MASK, len(SIDES))
    counts = np.bincount(members.rank * (len(SIDES) + 1) + side, minlength=members.starts.size * (len(SIDES) + 1))
    by_side = counts.reshape(-1, len(SIDES) + 1).T.astype(np.int64)
    buys, sells, inside = by_side[AA] + by_side[A], by_side[BB] + by_side[B], by_side[MID]
    aggressive = buys + sells
    placed = aggressive + inside
    return {
        **{f"nbbo_{name.lower()}_count": by_side[code] for code, name in enumerate(SIDES)},
        "nbbo_coverage_ratio": _ratio(placed, members.ends - members.starts),
        "nbbo_aggressive_buy_ratio": _ratio(buys, aggressive),
        "nbbo_aggressive_sell_ratio": _ratio(sells, aggressive),
        "nbbo_inside_ratio": _ratio(inside, placed),
        "nbbo_aggressive_ratio": _ratio(aggressive, placed),
    }


def _ratio(part: Integers, whole: Integers) -> Floats:
    return round4_array(part / np.maximum(whole, 1))


def _quotes(members: Members, rules: OptionRules) -> dict[str, npt.NDArray[np.generic] | pl.Series]:
    """The last member's frozen quotes, where they are fresh, and their join quality."""
    last = members.numbers[:, members.ends - 1]
    end_ts = np.maximum.reduceat(members.numbers[tail.SOURCE_TS], members.starts)
    bid, ask, under_bid, under_ask = (
        last[field].view(np.float64) for field in (tail.BID, tail.ASK, tail.UNDERLYING_BID, tail.UNDERLYING_ASK)
    )
    quoted = last[tail.FLAGS] & prints.QUOTED != 0
    age = np.where(quoted & (last[tail.QUOTE_TS] != NO_INTEGER), np.abs(end_ts - last[tail.QUOTE_TS]), NO_INTEGER)
    stale = (last[tail.FLAGS] & prints.AGED != 0) if rules.rules.quote_age_by_source else age > rules.packet_max_age_ms
    fresh = quoted & ~stale
    under_ts = last[tail.UNDERLYING_TS]
    under_quoted = (under_ts != NO_INTEGER) & np.isfinite(under_bid) & np.isfinite(under_ask) & (under_ask > 0)
    under_age = np.where(under_quoted, np.abs(end_ts - under_ts), NO_INTEGER)
    under_stale = under_age > rules.equity_max_age_ms
    under_fresh = under_quoted & ~under_stale
    return {
        "nbbo_missing": (~quoted).astype(np.int64),
        "nbbo_age_ms": age,
        "nbbo_stale": np.where(quoted, stale, NO_INTEGER),
        **_quote("nbbo", bid, ask, fresh),
        "nbbo_bid_size": np.where(fresh, last[tail.BID_SIZE], NO_INTEGER),
        "nbbo_ask_size": np.where(fresh, last[tail.ASK_SIZE], NO_INTEGER),
        "underlying_quote_missing": (~under_quoted).astype(np.int64),
        "underlying_quote_age_ms": under_age,
        "underlying_quote_stale": np.where(under_quoted, under_stale, NO_INTEGER),
        "underlying_quote_ts": np.where(under_fresh, under_ts, NO_INTEGER),
        **_quote("underlying", under_bid, under_ask, under_fresh),
    }


def _quote(prefix: str, bid: Floats, ask: Floats, fresh: Flags) -> dict[str, npt.NDArray[np.generic] | pl.Series]:
    return {
        f"{prefix}_bid": np.where(fresh, bid, np.nan),
        f"{prefix}_ask": np.where(fresh, ask, np.nan),
        f"{prefix}_mid": np.where(fresh, round4_array((bid + ask) / 2), np.nan),
        f"{prefix}_spread": np.where(fresh, round4_array(ask - bid), np.nan),
    }
