"""The options fold a print at a time: no columns, no expressions, nothing shared with the product but its settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from flowapp.core.rules import RuleSet
from flowapp.settings import Settings

Row = dict[str, Any]
SIDES = ("AA", "A", "MID", "B", "BB", "MISSING", "STALE")
CONTRACT = ("option_contract_id", "underlying_id", "root", "expiry", "strike", "option_type", "multiplier", "expires_at")
KEEPS = ("mode:all", "keep:auto-large", "keep:ask-side", "keep:sweep-or-iso", "keep:large-contract-count", "nbbo:crossed")


def rounded(value: float, decimals: int) -> float:
    if not math.isfinite(value):
        return 0.0
    return float(Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def or_else(value: Any, default: Any) -> Any:
    return default if value is None else value


@dataclass
class Cluster:
    contract: str
    start: int
    end: int
    opened_at: int
    rows: list[Row] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    late: bool = False


class OptionsOracle:
    def __init__(self, settings: Settings, rules: RuleSet, config: str) -> None:
        self.s, self.r, self.config = settings, rules, config
        self.window = settings.cluster_window_ms
        self.max_age = settings.options_signal_nbbo_max_age_ms
        self.packet_age = self.max_age if rules.quote_age_by_source else or_else(settings.nbbo_max_age_ms, 1000)

        def low(value: float, cap: float) -> float:
            return min(value, cap) if settings.options_signal_mode == "balanced" else value

        self.floor = low(settings.options_signal_min_notional, 5000)
        self.etf_floor = low(settings.options_signal_etf_min_notional, 25000)
        self.bid_floor = low(settings.options_signal_bid_side_min_notional, 15000)
        self.mid_floor = low(settings.options_signal_mid_min_notional, 12500)
        self.missing_floor = low(50000, 25000)
        self.sweep_floor = low(settings.options_signal_bid_side_min_notional, 15000)
        self.auto_floor = low(100000, 75000)
        self.w = -math.inf
        self.seqs: dict[str, int] = {}
        self.open: dict[str, Cluster] = {}
        self.late: dict[str, Cluster] = {}
        self.held: list[Cluster] = []
        self.signal: list[Row] = []
        self.packets: list[Row] = []
        self.eligible = 0

    def feed(self, rows: list[Row]) -> None:
        for row in rows:
            if row["seq"] <= self.seqs.get(row["run"], -math.inf):
                continue
            self.seqs[row["run"]] = row["seq"]
            if row["w"] is not None:
                self.on_tick(row)
            else:
                self.on_print(row)

    # Verdicts

    def side(self, row: Row, max_age: int, stale_first: bool) -> str:
        price, bid, ask, ts, at = row["price"], row["nbbo_bid"], row["nbbo_ask"], row["nbbo_ts"], row["source_ts"]
        with_trade = row["quote_source"] == "with_trade"
        if bid is None or ask is None or (ts is None and not (with_trade and self.r.quote_age_by_source)):
            return "MISSING"
        if self.r.quote_age_by_source and not with_trade and ts > at:
            return "MISSING"
        bad = not (math.isfinite(bid) and math.isfinite(ask)) or ask <= 0
        stale = self.stale(row, max_age)
        for reason, name in ((stale, "STALE"), (bad, "MISSING")) if stale_first else ((bad, "MISSING"), (stale, "STALE")):
            if reason:
                return name
        spread = max(0.0, ask - bid)
        eps = max(0.01, 0.05 * spread)
        if self.r.tolerance_within_spread:
            if bid > ask:
                return "MISSING"
            if bid == ask:
                return "AA" if price > ask else "BB" if price < bid else "MID"
            eps = min(eps, 0.49 * spread)
        if price > ask + eps:
            return "AA"
        if price >= ask - eps:
            return "A"
        if price < bid - eps:
            return "BB"
        return "B" if price <= bid + eps else "MID"

    def stale(self, row: Row, max_age: int) -> bool:
        ts, at = row["nbbo_ts"], row["source_ts"]
        if not self.r.quote_age_by_source:
            return ts is not None and abs(at - ts) > max_age
        if row["quote_source"] == "with_trade":
            return False
        seen = or_else(row["quote_feed_ts"], ts) if row["quote_source"] == "event" else ts
        return seen is not None and at - seen > max_age

    def decide(self, notional: float, side: str, size: int, etf: bool, sweep: bool) -> tuple[bool, list[str]]:
        if self.s.options_signal_mode == "all":
            return True, ["mode:all"]
        if notional < self.floor:
            return False, ["reject:min-notional"]
        keeps = ["keep:auto-large"] if notional >= self.auto_floor else []
        if etf and notional < self.etf_floor:
            return False, ["reject:etf-min-notional"]
        if side in ("B", "BB") and notional < self.bid_floor:
            return False, ["reject:bid-side-min-notional"]
        if side == "MID" and not sweep and notional < self.mid_floor:
            return False, ["reject:mid-min-notional"]
        if side in ("MISSING", "STALE") and notional < self.missing_floor:
            return False, ["reject:missing-nbbo-min-notional"]
        if side in ("A", "AA"):
            keeps.append("keep:ask-side")
        if sweep and notional >= self.sweep_floor:
            keeps.append("keep:sweep-or-iso")
        if size >= 500 and notional >= self.s.options_signal_min_notional:
            keeps.append("keep:large-contract-count")
        return (True, keeps) if keeps else (False, ["reject:no-signal-rule"])

    def signable(self, row: Row) -> bool:
        return not self.r.condition_policy or row["may_sign"] is not False

    def own_verdict(self, row: Row, side: str) -> tuple[bool, list[str]]:
        if row["is_cancel"]:
            return False, ["reject:cancel"]
        if row["is_excluded"]:
            return False, ["reject:excluded"]
        sweep = bool(row["is_sweep"]) if self.r.condition_policy else any(word.upper() in ("SWEEP", "ISO") for word in row["conditions"])
        counted = side if self.signable(row) else "MISSING"
        passed, why = self.decide(self.notional(row), counted, row["size"], self.is_etf(row), sweep)
        bid, ask = row["nbbo_bid"], row["nbbo_ask"]
        crossed = self.r.tolerance_within_spread and bid is not None and ask is not None and bid > ask > 0
        return passed, [*why, "nbbo:crossed"] if crossed else why

    def shares(self, row: Row) -> int:
        return int(or_else(row["multiplier"], 100)) if self.r.premium_in_dollars else 100

    def notional(self, row: Row) -> float:
        return rounded(row["price"] * row["size"] * self.shares(row), 2)

    def micro(self, row: Row) -> int:
        per_share = row["price"] * row["size"]
        whole: int = round((per_share * self.shares(row) if self.r.premium_in_dollars else per_share) * 1e6)
        return whole

    def is_etf(self, row: Row) -> bool:
        return row["underlying_id"] in self.s.options_signal_etf_underlyings

    # Prints

    def on_print(self, row: Row) -> None:
        side = self.side(row, self.max_age, stale_first=False)
        passed, why = self.own_verdict(row, side)
        if passed:
            self.signal.append({"trace_id": row["trace_id"], "nbbo_side": side, "signal_reasons": why, "origin_offset": row["_offset"]})
        if row["is_cancel"] or row["is_excluded"]:
            return
        self.eligible += 1
        if not self.r.cluster_every_print and not passed:
            return
        packet_side = side if self.r.quote_age_by_source else self.side(row, self.packet_age, stale_first=True)
        self.join(row, packet_side, why if passed else [])

    def join(self, row: Row, side: str, why: list[str]) -> None:
        contract, ts = row["option_contract_id"], row["source_ts"]
        cluster = self.open.get(contract)
        if row["arrived_late"] or row["time_suspect"] or ts <= self.w:
            if cluster is None or not cluster.start <= ts <= cluster.start + self.window:
                cluster = self.late.get(contract)
                if cluster is None:
                    cluster = self.late[contract] = Cluster(contract, ts, ts, row["_offset"], late=True)
        elif cluster is None or ts > cluster.start + self.window:
            if cluster is not None:
                self.close(cluster)
            cluster = self.open[contract] = Cluster(contract, ts, ts, row["_offset"])
        cluster.end = max(cluster.end, ts)
        cluster.rows.append(row)
        cluster.sides.append(side)
        cluster.reasons += why

    # Ticks

    def on_tick(self, row: Row) -> None:
        self.w = max(self.w, row["w"])
        for contract, cluster in list(self.open.items()):
            if self.w >= cluster.start + self.window:
                del self.open[contract]
                self.close(cluster)
        due = sorted((c for c in self.held if self.w >= c.end + 2 * self.window), key=lambda c: (c.end, c.contract))
        self.held = [c for c in self.held if self.w < c.end + 2 * self.window]
        late = sorted(self.late.values(), key=lambda c: (c.end, c.contract))
        self.late = {}
        for cluster in [*due, *(c for c in late if self.goes_on(c))]:
            self.packets.append(self.packet(cluster, row))

    def close(self, cluster: Cluster) -> None:
        if self.goes_on(cluster):
            self.held.append(cluster)

    def goes_on(self, cluster: Cluster) -> bool:
        if cluster.reasons:
            cluster.reasons = [reason for reason in KEEPS if reason in cluster.reasons]
            return True
        if not self.r.cluster_every_print:
            return False
        alert = [row for row in cluster.rows if row["may_alert"] is not False]
        signed = [(row["size"], side) for row, side in zip(cluster.rows, cluster.sides, strict=True) if self.signable(row)]
        bought = sum(size for size, side in signed if side in ("AA", "A"))
        sold = sum(size for size, side in signed if side in ("B", "BB"))
        placed = any(side not in ("MISSING", "STALE") for _, side in signed)
        side = "A" if bought > sold else "B" if sold > bought else "MID" if placed else "MISSING"
        dollars = sum(self.micro(row) for row in alert) / 1e6 * (1 if self.r.premium_in_dollars else 100)
        sweep = any(row["is_sweep"] for row in cluster.rows)
        passed, why = self.decide(dollars, side, sum(row["size"] for row in alert), self.is_etf(cluster.rows[0]), sweep)
        cluster.reasons = [f"parent:{reason}" for reason in why]
        return passed

    # Packets

    def packet(self, cluster: Cluster, tick: Row) -> Row:
        rows, first, last = cluster.rows, cluster.rows[0], cluster.rows[-1]
        identity = f"flowpacket:{cluster.contract}:{cluster.start}:{cluster.end}" + (f":late:{tick['_offset']}" if cluster.late else "")
        out: Row = {
            "source_ts": first["source_ts"], "ingest_ts": max(r["ingest_ts"] for r in rows), "seq": max(r["seq"] for r in rows),
            "trace_id": identity, "id": identity, "revision": 0, "final": True, "retracted": False,
            "origin_partition": tick["_partition"], "origin_offset": tick["_offset"], "packet_kind": "contract", "late": cluster.late,
            "members": [r["trace_id"] for r in rows[:1000]], "member_count": len(rows), "count": len(rows),
            "member_first_offset": first["_offset"], "member_last_offset": last["_offset"],
            **{name: first[name] for name in CONTRACT},
            "is_etf": self.is_etf(first), "total_size": sum(r["size"] for r in rows), "verdict_reasons": cluster.reasons,
            "first_price": first["price"], "last_price": last["price"], "start_ts": cluster.start, "end_ts": cluster.end,
            "window_ms": self.window, "rules": self.r.name, "config": self.config,
            "venue_count": len({r["exchange"] for r in rows}),
            "flagged_legs": sum(bool(r["is_multi_leg"]) for r in rows), "sweep_count": sum(bool(r["is_sweep"]) for r in rows),
            "pass_count": sum(bool(self.own_verdict(r, self.side(r, self.max_age, False))[0]) for r in rows),
            "weak_count": sum(bool(r["is_weak"]) and self.signable(r) for r in rows),
            "unsigned_count": sum(not self.signable(r) for r in rows),
        }  # fmt: skip
        micro = sum(self.micro(r) for r in rows)
        out["total_premium"] = rounded(micro / 1e6, 4)
        out["total_notional"] = rounded(micro / 1e6 * (1 if self.r.premium_in_dollars else 100), 2)
        for prefix in ("alert", "baseline"):
            chosen = [r for r in rows if r[f"may_{prefix}"] is not False]
            out[f"{prefix}_count"] = len(chosen)
            out[f"{prefix}_size"] = sum(r["size"] for r in chosen)
            out[f"{prefix}_premium"] = rounded(sum(self.micro(r) for r in chosen) / 1e6, 4)
        return out | self.placements(cluster) | self.quotes(cluster, last)

    def placements(self, cluster: Cluster) -> Row:
        signed = [side for row, side in zip(cluster.rows, cluster.sides, strict=True) if self.signable(row)]
        n = {side: signed.count(side) for side in SIDES}
        buys, sells = n["AA"] + n["A"], n["B"] + n["BB"]
        aggressive = buys + sells
        placed = aggressive + n["MID"]

        def ratio(part: int, whole: int) -> float:
            return rounded(part / whole, 4) if whole else 0.0

        return {
            **{f"nbbo_{side.lower()}_count": count for side, count in n.items()},
            "nbbo_coverage_ratio": ratio(placed, len(cluster.rows)), "nbbo_aggressive_buy_ratio": ratio(buys, aggressive),
            "nbbo_aggressive_sell_ratio": ratio(sells, aggressive), "nbbo_inside_ratio": ratio(n["MID"], placed),
            "nbbo_aggressive_ratio": ratio(aggressive, placed),
        }  # fmt: skip

    def quotes(self, cluster: Cluster, last: Row) -> Row:
        bid, ask, ts = last["nbbo_bid"], last["nbbo_ask"], last["nbbo_ts"]
        out: Row = dict.fromkeys(
            ("nbbo_age_ms", "nbbo_stale", "nbbo_bid", "nbbo_ask", "nbbo_mid", "nbbo_spread", "nbbo_bid_size", "nbbo_ask_size",
             "underlying_quote_age_ms", "underlying_quote_stale", "underlying_quote_ts", "underlying_bid", "underlying_ask",
             "underlying_mid", "underlying_spread")
        )  # fmt: skip
        with_trade = self.r.quote_age_by_source and last["quote_source"] == "with_trade"
        quoted = bid is not None and ask is not None and (with_trade or ts is not None)
        if quoted and self.r.quote_age_by_source and not with_trade:
            quoted = ts <= last["source_ts"]
        out["nbbo_missing"] = int(not quoted)
        if quoted:
            out["nbbo_age_ms"] = None if ts is None else abs(cluster.end - ts)
            stale = self.stale(last, self.packet_age) if self.r.quote_age_by_source else out["nbbo_age_ms"] > self.packet_age
            out["nbbo_stale"] = int(stale)
            if not stale:
                out |= {"nbbo_bid": bid, "nbbo_ask": ask, "nbbo_bid_size": last["nbbo_bid_size"], "nbbo_ask_size": last["nbbo_ask_size"]}
                out |= {"nbbo_mid": rounded((bid + ask) / 2, 4), "nbbo_spread": rounded(ask - bid, 4)}
        bid, ask, ts = last["underlying_bid"], last["underlying_ask"], last["underlying_ts"]
        valid = None not in (bid, ask, ts) and math.isfinite(bid) and math.isfinite(ask) and ask > 0
        out["underlying_quote_missing"] = int(not valid)
        if valid:
            out["underlying_quote_age_ms"] = abs(cluster.end - ts)
            out["underlying_quote_stale"] = int(out["underlying_quote_age_ms"] > self.s.equity_quote_max_age_ms)
            if not out["underlying_quote_stale"]:
                out |= {"underlying_quote_ts": ts, "underlying_bid": bid, "underlying_ask": ask}
                out |= {"underlying_mid": rounded((bid + ask) / 2, 4), "underlying_spread": rounded(ask - bid, 4)}
        return out
