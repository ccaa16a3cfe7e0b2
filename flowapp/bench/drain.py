"""How fast a worker drains a log that is already there, seen from outside by committed offsets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from flowapp.bench.measure import MILLION, Figure, Progress
from flowapp.bench.rig import AGENT, Worker, group_of, worker
from flowapp.errors import StackError
from flowapp.settings import Settings

MEGABYTE = 1 << 20
STEADY_FROM, STEADY_TO = 0.1, 0.95
DEADLINE_SECONDS = 600.0
MUST_NOT_BE_ZERO = ("flow_outputs_total", "flow_checkpoints_total", "flow_checkpoint_bytes_total", "flow_output_bytes_total")


@dataclass(frozen=True)
class Drained:
    """One drained log."""

    records: int
    progress: Progress
    workers: list[Worker]
    counters: dict[str, float]

    def moment(self, share: float) -> float:
        """Return when a share of the log was committed."""
        return self.progress.moment_of(int(self.records * share))

    def figure(self, name: str, target: float | None, **detail: Any) -> Figure:
        """Return the rate over the steady part, with what it cost."""
        start, end = self.moment(STEADY_FROM), self.moment(STEADY_TO)
        records = self.records * (STEADY_TO - STEADY_FROM)
        cpu = sum(one.usage.cpu_between(start, end) for one in self.workers)
        peak = max(one.usage.peak_between(start, end) for one in self.workers)
        return Figure(
            name, "records/s", records / (end - start), target, records=self.records, seconds=end - start,
            cpu_seconds_per_million=cpu / records * MILLION, peak_mb=peak / MEGABYTE,
            peak_mb_per_million=peak / MEGABYTE / (self.records / MILLION), detail={**self.detail(), **detail},
        )  # fmt: skip

    def detail(self) -> dict[str, Any]:
        """Return what the workers counted: poll size, outputs, checkpoints, bytes, seconds by stage."""
        total = self.total
        batches = total("flow_batches_total")
        stages = {
            key.split("stage=")[1].rstrip("}"): value for key, value in self.counters.items() if key.startswith("flow_stage_seconds_total")
        }
        return {
            "poll_records": round(total("flow_records_total") / batches) if batches else None,
            "outputs": total("flow_outputs_total"),
            "output_bytes": total("flow_output_bytes_total"),
            "checkpoints": total("flow_checkpoints_total"),
            "checkpoint_bytes": total("flow_checkpoint_bytes_total"),
            "dead_letters": total("flow_dead_letters_total"),
            "stage_seconds": {stage: round(seconds, 3) for stage, seconds in sorted(stages.items())},
        }

    def total(self, counter: str) -> float:
        """Return a counter summed over its labels."""
        return sum(value for key, value in self.counters.items() if key.startswith(counter + "{"))

    def check_outputs(self, name: str) -> None:
        """Refuse a figure of an agent that did not do its work.

        Raises:
            StackError: it wrote no outputs, no checkpoints or no bytes, or refused records.
        """
        idle = [counter for counter in MUST_NOT_BE_ZERO if not self.total(counter)]
        if idle or self.total("flow_dead_letters_total"):
            raise StackError(
                f"{name}: the agent did not do its work: zero {', '.join(idle)}, dead letters {self.total('flow_dead_letters_total'):.0f}"
            )


def drain(settings: Settings, records: int, program: Sequence[str] = AGENT, workers: int = 1, metrics: bool = True) -> Drained:
    """Run workers until every record is committed."""
    with ExitStack() as stack:
        running = [stack.enter_context(worker(replace(settings, worker_id=number), program)) for number in range(workers)]
        progress = group_of(settings).follow(records, DEADLINE_SECONDS, lambda: all(one.alive for one in running))
        counters: dict[str, float] = {}
        for one in running if metrics else ():
            for key, value in one.metrics().items():
                counters[key] = counters.get(key, 0.0) + value
    return Drained(records, progress, running, counters)
