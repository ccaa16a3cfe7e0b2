"""Time the options fold in process: python -m tests.oracle.speed [mode] [prints a second of tape] [prints a partition and poll].

40 % of the prints lie in one of eight partitions. Times are CPU time of judge and apply, decoded and stamped input given.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import polars as pl

from flowapp.core.fold import MemoryState
from flowapp.core.options import OptionsFold
from flowapp.settings import Settings
from tests.tapes import START_MS, random_prints, stamped, with_ticks

PARTITIONS, PRINTS, HOT_SHARE, CYCLES, TICK_MS = 8, 200_000, 0.4, 4, 250
TIMES = ("source_ts", "ingest_ts", "nbbo_ts", "quote_feed_ts", "underlying_ts")


def partition_log(number: int, rate: int, settings: Settings) -> pl.DataFrame:
    """Return a partition's share of a tape whose prints come evenly."""
    count = int(PRINTS * (HOT_SHARE if number == 0 else (1 - HOT_SHARE) / (PARTITIONS - 1)))
    span_ms = PRINTS * 1000 // rate
    prints = random_prints(number, count, contracts=2000, span_ms=span_ms, underlyings=(f"U{number}", f"V{number}"))
    ts = pl.Series(START_MS + np.sort(np.random.default_rng(number).integers(0, span_ms, count)))
    moved = ts - prints["source_ts"]
    prints = prints.with_columns(*((pl.col(name) + moved).alias(name) for name in TIMES), pl.lit(False).alias("time_suspect"))
    return stamped(with_ticks(prints, TICK_MS, wait_ms=1), settings).with_columns(pl.lit(number).cast(pl.Int64).alias("_partition"))


def polls(logs: list[pl.DataFrame], rate: int, rows: int) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield (cycle, poll), the tape again and again, later each time."""
    steps = max(1, PRINTS // (PARTITIONS * rows))
    shift_ms = (PRINTS * 1000 // rate // TICK_MS + 2) * TICK_MS
    for cycle in range(CYCLES):
        for step in range(steps):
            parts = []
            for log in logs:
                part = log[log.height * step // steps : log.height * (step + 1) // steps]
                later = [pl.col(name) + cycle * shift_ms for name in (*TIMES, "w")]
                parts.append(part.with_columns(*later, pl.col("_offset", "seq") + cycle * log.height))
            yield cycle, pl.concat(parts, rechunk=True)


def main(arguments: list[str]) -> None:
    """Print figures of the cycles after the first."""
    mode, rate, rows = arguments[0] if arguments else "smart-money", *(int(text) for text in (*arguments[1:], "5000", "8000")[:2])
    settings = Settings(options_signal_mode=mode)
    fold = OptionsFold(settings)
    logs = [partition_log(number, rate, settings) for number in range(PARTITIONS)]
    states = {number: MemoryState() for number in range(PARTITIONS)}
    judge_s, apply_s, prints, outputs, rates = 0.0, 0.0, 0, 0, []
    for cycle, frame in polls(logs, rate, rows):
        begun = time.process_time()
        judged = fold.judge(frame)
        half = time.process_time()
        results = fold.apply_poll(judged, states)
        ended = time.process_time()
        for number, result in results.items():
            states[number].merge(result)
        if cycle:
            judge_s, apply_s = judge_s + half - begun, apply_s + ended - half
            prints += frame["w"].null_count()
            outputs += sum(output.height for result in results.values() for output in result.outputs.values())
            rates.append(frame["w"].null_count() / (ended - begun))
    print(f"{mode}, {rate} prints/s of tape, {rows} rows a partition, {outputs / prints:.2f} outputs a print:")
    print(f"  judge {judge_s / prints * 1e9:.0f} ns, apply {apply_s / prints * 1e9:.0f} ns a print")
    print(f"  {prints / (judge_s + apply_s):,.0f} prints/s (median poll {np.median(rates):,.0f}, best {max(rates):,.0f})")


if __name__ == "__main__":
    main(sys.argv[1:])
