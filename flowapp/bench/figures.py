"""The figures: each runs on the real broker and says what it measured."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

from flowapp import topics
from flowapp.bench import tape
from flowapp.bench.drain import MEGABYTE, drain
from flowapp.bench.measure import MILLION, Figure, Usage
from flowapp.bench.rig import AGENT, INTAKE, STOCK, Rig, group_of, wait_until_assigned, worker
from flowapp.engine.producer import KafkaProducer, MemoryProducer

AGENT_PRINTS = 2_000_000
INTAKE_PRINTS = 2_000_000
STOCK_PRINTS = 200_000
BURST_PRINTS = 120_000
MEMORY_MILLIONS = 5
HOT_SHARE = 0.4

Run = Callable[[Rig, float], list[Figure]]


def scaled(prints: int, scale: float) -> int:
    """Return a number of prints at the bench's scale, at least one event second of them."""
    return max(int(tape.MARKET_RATE), int(prints * scale))


def edge_figure(rig: Rig, scale: float) -> list[Figure]:
    """Events a second from the synthetic market to the broker, quotes and equities included."""
    wanted = (topics.OPTIONS_PRINTS, topics.OPTIONS_NBBO, topics.EQUITIES_PRINTS, topics.EQUITIES_QUOTES)
    with rig.namespace("edge") as settings:
        usage = Usage(os.getpid())
        written = tape.write(settings, scaled(AGENT_PRINTS // 2, scale), wanted=wanted)
        usage.stop()
    cost = written.cpu_seconds / written.events * MILLION
    return [
        Figure(
            "edge",
            "events/s",
            written.events / written.seconds,
            150_000,
            records=written.events,
            seconds=written.seconds,
            cpu_seconds_per_million=cost,
        )
    ]


def stock_figure(rig: Rig, scale: float) -> list[Figure]:
    """Stock Faust with an agent that does nothing."""
    with rig.namespace("stock") as settings:
        written = tape.write(settings, scaled(STOCK_PRINTS, scale))
        drained = drain(settings, written.records, STOCK, metrics=False)
        return [drained.figure("stock", None)]


def intake_figure(rig: Rig, scale: float) -> list[Figure]:
    """Our transport and codec around a fold that does nothing."""
    with rig.namespace("intake") as settings:
        written = tape.write(settings, scaled(INTAKE_PRINTS, scale))
        return [drain(settings, written.records, INTAKE).figure("intake", 250_000)]


def _agent(rig: Rig, scale: float, name: str, target: float, hot_share: float = 0.0, workers: int = 1, **overrides: Any) -> Figure:
    with rig.namespace(name, **overrides) as settings:
        written = tape.write(settings, scaled(AGENT_PRINTS, scale), hot_share)
        drained = drain(settings, written.records, AGENT, workers)
        drained.check_outputs(name)
        signal_prints = sum(
            value for key, value in drained.counters.items() if key.startswith("flow_outputs_total") and topics.OPTIONS_SIGNAL in key
        )
        return drained.figure(
            name,
            target,
            rules=settings.rules,
            mode=settings.options_signal_mode,
            share_passed=round(signal_prints / written.records, 4),
            workers=workers,
        )


def agent_signal_figure(rig: Rig, scale: float) -> list[Figure]:
    """The whole options agent, smart-money."""
    return [_agent(rig, scale, "agent_signal", 150_000)]


def agent_all_figure(rig: Rig, scale: float) -> list[Figure]:
    """The whole options agent, every print passes; then the same by two workers."""
    one = _agent(rig, scale, "agent_all", 120_000, options_signal_mode="all")
    two = _agent(rig, scale, "agent_all_two", 0, workers=2, options_signal_mode="all")
    ratio = Figure(
        "two_workers",
        "times one",
        two.value / one.value,
        1.5,
        records=two.records,
        detail={"two_workers_per_second": round(two.value), **two.detail},
    )
    return [one, ratio]


def hot_figure(rig: Rig, scale: float) -> list[Figure]:
    """As agent_all, with 40 % of the prints in one underlying."""
    return [_agent(rig, scale, "hot", 80_000, HOT_SHARE, options_signal_mode="all")]


def burst_figure(rig: Rig, scale: float) -> list[Figure]:
    """How long an idle worker takes to drain 120 thousand prints, from the first one sent to the last one committed."""
    with rig.namespace("burst", options_signal_mode="all") as settings:
        held = MemoryProducer()
        written = tape.write(settings, scaled(BURST_PRINTS, scale), producer=held)
        producer = KafkaProducer(settings.bootstrap, client_id="flow-bench")
        with worker(settings) as running:
            wait_until_assigned(running)
            began = time.monotonic()
            topic, partitions, keys, values, timestamps, _ = zip(*held.sent, strict=True)
            producer.send(topic[0], values, keys=keys, partitions=partitions, timestamps=timestamps)
            producer.close()
            progress = group_of(settings).follow(written.records, 60.0, lambda: running.alive)
        seconds = progress.series[-1][0] - began
        return [Figure("burst", "seconds", seconds, 2.0, better="less", records=written.records, seconds=seconds)]


def memory_figure(rig: Rig, scale: float) -> list[Figure]:
    """Whether memory stays flat: peak of the last million prints against that of the second."""
    with rig.namespace("memory", options_signal_mode="all") as settings:
        written = tape.write(settings, scaled(MEMORY_MILLIONS * MILLION, scale))
        drained = drain(settings, written.records)
        usage = drained.workers[0].usage
        moments = [drained.moment(step / MEMORY_MILLIONS) for step in range(MEMORY_MILLIONS + 1)]
        peaks = [usage.peak_between(start, end) / MEGABYTE for start, end in itertools.pairwise(moments)]
        detail = {"peak_mb_by_fifth": [round(peak, 1) for peak in peaks]}
        return [
            Figure("memory", "times", peaks[-1] / peaks[1], 1.05, better="less", records=written.records, peak_mb=max(peaks), detail=detail)
        ]
