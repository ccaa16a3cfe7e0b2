"""The order in which events leave, where ticks stand, and that neither depends on how a feed is cut into chunks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flowapp.edge.adapters.base import OPTION_QUOTES, OPTION_TRADES, Chunk
from flowapp.edge.order import FILE_AHEAD_MS, FOREVER, OPTION_TRADE, Sequencer, release
from flowapp.edge.ticks import TickClock, TopicTicks

TICK_MS = 250


def trades(rows: Iterable[tuple[int, int]]) -> pl.DataFrame:
    """Trades of (n, source_ts); the partition of a trade is n modulo 2 in these tests."""
    frame = pl.DataFrame([{"n": n, "source_ts": ts} for n, ts in rows], schema={"n": pl.Int64, "source_ts": pl.Int64})
    return frame.with_columns([pl.lit(None, kind).alias(name) for name, kind in OPTION_TRADES.items() if name not in frame.columns])


def log(times: list[int], cuts: list[int], reorder_ms: int = 0, tick_ms: int = TICK_MS) -> dict[int, list[tuple[str, int, bool]]]:
    """Run a feed through order and ticks; return what each of two partitions' logs say, in order."""
    sequencer, clock, ticks = Sequencer(reorder_ms), TickClock(tick_ms), TopicTicks([0, 1], tick_ms)
    logs: dict[int, list[tuple[str, int, bool]]] = {0: [], 1: []}
    bounds = [0, *sorted(set(cuts) & set(range(1, len(times)))), len(times)]
    for start, end in itertools.pairwise(bounds):
        newest = max(times[:end])
        sequencer.push(Chunk(newest - 1, trades(enumerate(times))[start:end]))
        if end == len(times):
            sequencer.end()
        batch = release([sequencer])
        grid = clock.advance(batch)
        part = batch.parts[OPTION_TRADE]
        partition = part.frame["n"].to_numpy() % 2
        ts = part.frame["source_ts"].to_numpy()
        placed = ticks.place(grid, partition, part.index, ts, part.suspect, np.ones(part.size, bool))
        entries = [
            (2 * int(i) + 1, int(p), ("print", int(t), bool(x))) for i, p, t, x in zip(part.index, partition, ts, placed.late, strict=True)
        ]
        entries += [
            (2 * int(i), int(p), ("tick", int(w), False)) for i, p, w in zip(placed.before, placed.partition, placed.w, strict=True)
        ]
        for _, p, entry in sorted(entries, key=lambda row: row[0]):
            logs[p].append(entry)
    return logs


def oracle(times: list[int], tick_ms: int = TICK_MS) -> dict[int, list[tuple[str, int, bool]]]:
    """The same, one event at a time."""
    logs: dict[int, list[tuple[str, int, bool]]] = {0: [], 1: []}
    newest: int | None = None
    done: int | None = None
    record, last = {0: -(10**15), 1: -(10**15)}, {0: -(10**15), 1: -(10**15)}
    previous: int | None = None
    for n, ts in enumerate(times):
        suspect = previous is not None and ts > previous + FILE_AHEAD_MS
        previous = ts
        effective = newest if suspect and newest is not None else max(ts, newest or ts)
        below = (effective - 1) // tick_ms
        if done is None:
            done = below - 1
        dense_end = done if newest is None else max(done, min(below, (newest + 2000) // tick_ms))
        for k in [*range(done + 1, dense_end + 1), *range(max(dense_end + 1, below), below + 1)]:
            w = k * tick_ms
            dense = newest is not None and w <= newest + 2000
            if not dense and k != below:
                continue
            for p in (0, 1):
                second = w // 1000 != (w - tick_ms) // 1000
                if not dense or second or w <= record[p] + 2000:
                    logs[p].append(("tick", w, False))
                    last[p] = w
        done = max(done, below)
        newest = effective
        p = n % 2
        logs[p].append(("print", ts, suspect or ts <= last[p]))
        if not suspect:
            record[p] = max(record[p], ts)
    return logs


def without_the_end(entries: list[tuple[str, int, bool]]) -> list[tuple[str, int, bool]]:
    while entries and entries[-1][0] == "tick":
        entries = entries[:-1]
    return entries


STEPS = st.lists(
    st.sampled_from([0, 0, 1, 3, 40, 249, 250, 251, 999, 1000, 2000, 2001, 7000, 86_400_000, -1, -300, -5000]), min_size=1, max_size=40
)


@given(STEPS, st.lists(st.integers(1, 40), max_size=6), st.sampled_from([1, 250, 300, 5000]))
@settings(max_examples=200, deadline=None)
def test_log_equals_the_plain_one_however_the_feed_is_cut(steps: list[int], cuts: list[int], tick_ms: int) -> None:
    times = list(np.cumsum(np.array([1_700_000_000_123, *steps])))
    cut, whole, plain = log(times, cuts, tick_ms=tick_ms), log(times, [], tick_ms=tick_ms), oracle(times, tick_ms)
    for p in (0, 1):
        assert without_the_end(cut[p]) == without_the_end(whole[p]) == without_the_end(plain[p])
        assert cut[p] == whole[p]


@given(STEPS, st.lists(st.integers(1, 40), max_size=6), st.sampled_from([50, 400, 10_000]))
@settings(max_examples=100, deadline=None)
def test_a_reorder_buffer_sorts_stragglers_whatever_the_chunks(steps: list[int], cuts: list[int], reorder_ms: int) -> None:
    times = list(np.cumsum(np.array([1_700_000_000_123, *steps])))
    cut, whole = log(times, cuts, reorder_ms), log(times, [], reorder_ms)
    for p in (0, 1):
        assert [entry for entry in cut[p] if entry[0] == "print"] == [entry for entry in whole[p] if entry[0] == "print"]
        assert without_the_end(cut[p]) == without_the_end(whole[p])


@given(STEPS)
@settings(max_examples=100, deadline=None)
def test_ticks_rise_and_say_the_truth(steps: list[int]) -> None:
    times = list(np.cumsum(np.array([1_700_000_000_123, *steps])))
    for entries in log(times, []).values():
        w = -1
        for kind, ts, late in entries:
            if kind == "tick":
                assert ts > w
                assert ts % TICK_MS == 0
                w = ts
            else:
                assert late == (ts <= w)


def test_a_straggler_within_the_buffer_leaves_in_its_place_and_a_later_one_is_flagged() -> None:
    base = 1_700_000_000_000
    times = [base + 100, base + 300, base + 280, base + 900, base + 700, base + 2000]
    prints = [entry for p in (0, 1) for entry in log(times, [], reorder_ms=50)[p] if entry[0] == "print"]
    assert sorted((ts - base, late) for _, ts, late in prints) == [
        (100, False),
        (280, False),
        (300, False),
        (700, True),
        (900, False),
        (2000, False),
    ]


def test_a_gap_in_a_file_gets_one_last_tick_not_a_flood() -> None:
    base = 1_700_000_000_000
    entries = log([base, base + 8 * 3_600_000], [])[1]
    assert [ts - base for kind, ts, _ in entries if kind == "tick"][:1] == [-250]
    gap = [ts - base for kind, ts, _ in log([base, base + 8 * 3_600_000], [])[0] if kind == "tick" and 0 <= ts - base < 8 * 3_600_000]
    assert gap == [*range(0, 2001, 250), 8 * 3_600_000 - 250]


def test_a_partition_without_records_ticks_once_a_second() -> None:
    base = 1_700_000_000_000
    even = [base + 100 * i for i in range(100)]
    sequencer, clock, ticks = Sequencer(), TickClock(TICK_MS), TopicTicks([0, 1], TICK_MS)
    sequencer.push(Chunk(even[-1], trades((2 * i, ts) for i, ts in enumerate(even))))
    batch = release([sequencer])
    part = batch.parts[OPTION_TRADE]
    placed = ticks.place(clock.advance(batch), np.zeros(100, np.int64), part.index, np.array(even), part.suspect, np.ones(100, bool))
    silent = placed.w[placed.partition == 1] - base
    assert silent.tolist() == [-250, *range(0, 9001, 1000)]
    assert (placed.w[placed.partition == 0] - base).tolist() == list(range(-250, 9901, 250))


def test_the_end_of_a_file_closes_what_a_fold_may_wait_for() -> None:
    sequencer, clock = Sequencer(), TickClock(TICK_MS)
    sequencer.push(Chunk(1_000_100, trades([(0, 1_000_100)])))
    sequencer.end()
    clock.advance(release([sequencer]))
    grid = clock.finish(1_800_000)
    assert grid.w.tolist()[-1] == 2_800_250
    assert grid.is_last.tolist()[-1]


def test_a_time_far_ahead_of_its_predecessor_is_suspect_and_moves_no_tick() -> None:
    base = 1_700_000_000_000
    entries = log([base, base + 10, base + FILE_AHEAD_MS + 11, base + 300, base + 600], [])
    assert ("print", base + FILE_AHEAD_MS + 11, True) in entries[0]
    assert ("print", base + 300, False) in entries[1]
    assert max(ts for kind, ts, _ in entries[1] if kind == "tick") < base + 10_000


def test_another_file_may_begin_years_later() -> None:
    first, second = Sequencer(), Sequencer()
    first.push(Chunk(1_381_240_800_000, trades([(0, 1_381_240_800_000)])))
    second.push(Chunk(1_900_000_000_000, trades([(0, 1_900_000_000_000)])))
    first.end()
    second.end()
    assert not release([first, second]).parts[OPTION_TRADE].suspect.any()


def test_two_feeds_merge_by_time_and_wait_for_each_other() -> None:
    first, second = Sequencer(), Sequencer()
    first.push(Chunk(1000, trades([(0, 100), (1, 900)])))
    quotes = (
        trades([(0, 500)])
        .select("n", "source_ts")
        .with_columns([pl.lit(None, kind).alias(name) for name, kind in OPTION_QUOTES.items() if name not in ("n", "source_ts")])
    )
    second.push(Chunk(600, option_quotes=quotes))
    batch = release([first, second])
    assert batch.upto_ts == 600
    assert batch.effective.tolist() == [100, 500]
    second.end()
    assert release([first, second]).effective.tolist() == [900]
    first.end()
    assert release([first, second], FOREVER).size == 0


def test_a_live_feed_waits_by_the_wall_clock_and_ticks_while_silent() -> None:
    sequencer, clock = Sequencer(50, live=True), TickClock(TICK_MS, live=True)
    sequencer.push(Chunk(0, trades([(0, 10_000), (1, 9_990), (2, 20_000)])), now_ms=10_010)
    assert release([sequencer]).parts[OPTION_TRADE].frame["n"].to_list() == [2]
    sequencer.push(Chunk(0), now_ms=10_060)
    batch = release([sequencer])
    assert batch.parts[OPTION_TRADE].frame["n"].to_list() == [1, 0]
    clock.advance(batch)
    sequencer.push(Chunk(0), now_ms=13_060)
    assert clock.advance(release([sequencer])).w.tolist() == list(range(10_250, 13_001, 250))
