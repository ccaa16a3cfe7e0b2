"""A scripted live feed: stragglers, silence, a print from the future, a restart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from flowapp import topics
from flowapp.engine.producer import Sent
from tests.mocks.edge import FakeClock, Scripted, chunk, decoded, feeds_of, memory_settings, run_edge

NOW = 1_718_371_800_000
PARTITION = topics.partition_of("AAPL", 8)
Arrival = tuple[int, list[dict[str, Any]]]


def live(script: Sequence[Arrival], before: Sequence[Sent] = (), run: str = "r1", **values: Any) -> list[Sent]:
    """Deliver (wall clock after NOW, events); event times are after NOW too."""
    chunks = [chunk([{**event, "source_ts": NOW + event["source_ts"]} for event in events], 0) for _, events in script]
    clock = FakeClock(NOW)
    feed = Scripted(chunks, live=True, clock=clock, arrivals=[NOW + at for at, _ in script])
    settings = memory_settings(**values)
    return run_edge(settings, feeds_of(feed, run=run, live=True), before, clock=clock)


def option(n: int, ts: int, **more: Any) -> dict[str, Any]:
    return {"kind": "op", "n": n, "source_ts": ts, **more}


def quote(n: int, ts: int, **more: Any) -> dict[str, Any]:
    return {"kind": "on", "n": n, "source_ts": ts, **more}


def tape(sent: Sequence[Sent], partition: int = PARTITION) -> list[tuple[str, int, bool | None]]:
    """The log of a partition: what, time after NOW, late."""
    rows = decoded(sent, topics.OPTIONS_PRINTS).filter(pl.col("_partition") == partition)
    return [
        ("tick", w - NOW, None) if w is not None else ("print", ts - NOW, late)
        for w, ts, late in rows.select("w", "source_ts", "arrived_late").iter_rows()
    ]


def test_stragglers_within_the_wait_are_put_in_their_place_and_later_ones_flagged() -> None:
    sent = live([(10, [option(0, 5)]), (30, [option(1, 28), option(2, 20)]), (100, []), (700, [option(3, 300), option(4, 690)]), (800, [])])
    prints = [row for row in tape(sent) if row[0] == "print"]
    assert prints == [("print", 5, False), ("print", 20, False), ("print", 28, False), ("print", 300, True), ("print", 690, False)]


def test_ticks_tell_the_truth_and_go_on_by_the_wall_clock_while_the_feed_is_silent() -> None:
    sent = live([(0, []), (100, [option(0, 90)]), *((at, []) for at in range(200, 6001, 100))])
    log = tape(sent)
    ticks = [ts for kind, ts, _ in log if kind == "tick"]
    assert ticks == [*range(0, 2001, 250), 3000, 4000, 5000]
    assert log.index(("print", 90, False)) == log.index(("tick", 0, None)) + 1
    silent = [ts for kind, ts, _ in tape(sent, (PARTITION + 1) % 8) if kind == "tick"]
    assert silent == [0, 1000, 2000, 3000, 4000, 5000]


def test_no_print_follows_a_tick_above_it_unless_it_is_flagged() -> None:
    script: list[Arrival] = [(40 * i, [option(i, 40 * i - (37 * i) % 200)]) for i in range(200)]
    newest = -(10**9)
    for kind, ts, late in tape(live([*script, (9000, [])])):
        if kind == "tick":
            assert ts > newest
            newest = ts
        else:
            assert late == (ts <= newest)


def test_a_print_from_the_future_is_kept_flagged_and_moves_no_tick() -> None:
    sent = live([(100, [option(0, 95), option(1, 60_000)]), (300, [option(2, 295)]), (400, []), (1000, [])])
    rows = decoded(sent, topics.OPTIONS_PRINTS).filter(pl.col("w").is_null())
    found = rows.select(pl.col("source_ts") - NOW, "time_suspect", "arrived_late").rows()
    assert sorted(found) == [(95, False, False), (295, False, False), (60_000, True, True)]
    assert max(ts for kind, ts, _ in tape(sent) if kind == "tick") <= 950
    near = live([(100, [option(0, 4_000)]), (4_100, [])])
    assert ("print", 4_000, False) in tape(near)


def test_reception_is_frozen_and_quotes_are_joined_at_or_before_the_trade() -> None:
    sent = live(
        [
            (100, [quote(0, 90, bid=1.0, ask=1.2), option(1, 95), quote(2, 93, bid=1.1, ask=1.3)]),
            (200, []),
            (300, [option(3, 250)]),
            (400, []),
        ]
    )
    rows = decoded(sent, topics.OPTIONS_PRINTS).filter(pl.col("w").is_null())
    assert rows["ingest_ts"].to_list() == [NOW + 100, NOW + 300]
    assert rows["nbbo_bid"].to_list() == [1.1, 1.1]
    assert rows["quote_feed_ts"].to_list() == [NOW + 93, NOW + 93]


def test_a_restart_opens_a_new_run_whose_ticks_go_on() -> None:
    first = live([(100, [option(0, 95)]), (1200, [])])
    second = live([(900, [option(0, 890), option(1, 899)]), (1500, [option(2, 1490)]), (2600, [])], first, run="r2")
    log = tape([*first, *second])
    ticks = [ts for kind, ts, _ in log if kind == "tick"]
    assert ticks == sorted(set(ticks))
    assert ("print", 890, True) in log
    assert ("print", 1490, False) in log
    rows = decoded(second, topics.OPTIONS_PRINTS).filter(pl.col("_partition") == PARTITION)
    assert rows["run"].unique().to_list() == ["r2"]
    assert rows["seq"].to_list() == list(range(rows.height))
