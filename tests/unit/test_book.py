"""The quote book and the band against plain row-by-row versions, however the feed is cut."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flowapp.edge.band import Band
from flowapp.edge.book import DEPTH, NO_NS, Book, Found, Quotes, Wanted

BASE = 1_700_000_000_000


@dataclass(frozen=True)
class Event:
    kind: str
    code: int
    ts: int
    ns: int | None
    bid: float = 1.0


def quotes_of(events: list[Event], places: list[int]) -> Quotes:
    rows = [(event, place) for event, place in zip(events, places, strict=True) if event.kind == "quote"]
    size = len(rows)
    texts = np.array([f"q{place}" for _, place in rows], dtype=object)
    return Quotes(
        np.array([place for _, place in rows], np.int64), np.array([event.code for event, _ in rows], np.int64),
        np.array([event.ts for event, _ in rows], np.int64),
        np.array([NO_NS if event.ns is None else event.ns for event, _ in rows], np.int64),
        np.array([event.bid for event, _ in rows], float), np.array([event.bid + 1 for event, _ in rows], float), np.full(size, 5),
        np.full(size, 7), np.full(size, 0), np.full(size, 1), np.full(size, 2), texts,
    )  # fmt: skip


def joined(events: list[Event], cuts: list[int], ties: bool) -> list[tuple[str, bool] | None]:
    """Answer every trade through the book: the quote's id, made of its place, and whether it is a tie."""
    book = Book()
    answers: list[tuple[str, bool] | None] = []
    bounds = [0, *sorted(set(cuts) & set(range(1, len(events)))), len(events)]
    for start, end in itertools.pairwise(bounds):
        part, places = events[start:end], list(range(end - start))
        trades = [(event, place) for event, place in zip(part, places, strict=True) if event.kind == "trade"]
        wanted = Wanted(
            np.array([place for _, place in trades], np.int64), np.array([event.code for event, _ in trades], np.int64),
            np.array([event.ts for event, _ in trades], np.int64),
            np.array([NO_NS if event.ns is None else event.ns for event, _ in trades], np.int64), ties,
        )  # fmt: skip
        quotes = quotes_of(part, places)
        quotes.trace_id[:] = [f"q{start + int(text[1:])}" for text in quotes.trace_id]
        found: Found = book.step(quotes, [wanted], 3)[0]
        ids = iter(found.columns["trace_id"])
        answers += [(next(ids), bool(tie)) if exists else None for exists, tie in zip(found.exists, found.tie, strict=True)]
    return answers


def oracle(events: list[Event], ties: bool) -> list[tuple[str, bool] | None]:
    kept: dict[int, list[tuple[Event, int]]] = {}
    answers: list[tuple[str, bool] | None] = []
    for place, event in enumerate(events):
        history = kept.setdefault(event.code, [])
        if event.kind == "quote":
            comparable = event.ts * 1_000_000 if event.ns is None else event.ns
            newest = max((old.ts * 1_000_000 if old.ns is None else old.ns for old, _ in history), default=comparable)
            if comparable >= newest:
                history.append((event, place))
            continue
        answer = None
        for quote, at in list(reversed(history))[:DEPTH]:
            age = event.ts - quote.ts if event.ns is None or quote.ns is None else event.ns - quote.ns
            if age > 0 or (age == 0 and ties):
                answer = (f"q{at}", age == 0)
                break
        answers.append(answer)
    return answers


KINDS = st.sampled_from(["quote", "trade"])


@st.composite
def tapes(draw: st.DrawFn) -> list[Event]:
    ts, events = BASE, list[Event]()
    for kind, code, step, ns in draw(
        st.lists(st.tuples(KINDS, st.integers(0, 2), st.sampled_from([0, 0, 0, 1, 2, 50, -1, -3]), st.integers(0, 3)), max_size=80)
    ):  # fmt: skip
        ts += step
        events.append(Event(kind, code, ts, None if ns == 0 else ts * 1_000_000 + ns))
    return events


@given(tapes(), st.lists(st.integers(1, 80), max_size=5), st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_join_equals_the_plain_one_however_the_feed_is_cut(events: list[Event], cuts: list[int], ties: bool) -> None:
    assert joined(events, cuts, ties) == oracle(events, ties)


def test_a_quote_of_the_trades_own_time_counts_only_with_a_known_order() -> None:
    events = [Event("quote", 0, BASE, None), Event("quote", 0, BASE + 5, None), Event("trade", 0, BASE + 5, None)]
    assert joined(events, [], ties=True) == [("q1", True)]
    assert joined(events, [], ties=False) == [("q0", False)]


def test_a_quote_observed_after_the_trade_is_never_used() -> None:
    events = [Event("trade", 0, BASE + 5, None), Event("quote", 0, BASE + 1, None), Event("trade", 0, BASE + 5, None)]
    assert joined(events, [], ties=True) == [None, ("q1", False)]


def test_a_late_trade_finds_the_quote_of_its_own_time_in_the_book() -> None:
    events = [Event("quote", 0, BASE + 10 * i, None) for i in range(8)] + [Event("trade", 0, BASE + 35, None)]
    for cuts in ([], [8], [2, 5, 8]):
        assert joined(events, cuts, ties=True) == [("q3", False)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["quote", "print"]), st.integers(0, 1), st.sampled_from([0, 1, 30, 500, 2500]), st.integers(1, 9)),
        max_size=60,
    ),
    st.lists(st.integers(1, 60), max_size=4),
)
@settings(max_examples=200, deadline=None)
def test_the_band_is_what_stood_at_some_moment_of_the_span(rows: list[tuple[str, int, int, int]], cuts: list[int]) -> None:
    span, time = 1000, BASE
    events: list[tuple[str, int, int, float]] = []
    for kind, code, step, bid in rows:
        time += step
        events.append((kind, code, time, float(bid)))
    expected, history = [], dict[int, list[tuple[int, float]]]()
    for kind, code, at, value in events:
        seen = history.setdefault(code, [])
        if kind == "quote":
            seen.append((at, value))
            continue
        standing = [bid for i, (_, bid) in enumerate(seen) if i + 1 == len(seen) or seen[i + 1][0] > at - span]
        expected.append((min(standing), max(standing)) if standing else None)
    band, found = Band(span), []
    bounds = [0, *sorted(set(cuts) & set(range(1, len(events)))), len(events)]
    for start, end in itertools.pairwise(bounds):
        part = list(enumerate(events[start:end]))
        quotes = [(code, place, at, bid) for place, (kind, code, at, bid) in part if kind == "quote"]
        prints = [(code, place, at) for place, (kind, code, at, _) in part if kind == "print"]
        codes, places, times = (np.array([row[i] for row in quotes], np.int64) for i in range(3))
        bids = np.array([row[3] for row in quotes], float)
        window = band.keep(codes, places, times, bids, bids + 1)
        low, high, ask_low, ask_high = window.around(*(np.array([row[i] for row in prints], np.int64) for i in range(3)))
        found += [None if math.isnan(a) else (a, b) for a, b in zip(low, high, strict=True)]
        assert np.array_equal(ask_low, low + 1, equal_nan=True)
        assert np.array_equal(ask_high, high + 1, equal_nan=True)
        if part:
            band.forget(events[end - 1][2])
    assert found == expected
