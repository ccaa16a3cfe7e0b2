"""`flow bench`: figures of one run on the real broker."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from flowapp.bench import figures, latency, restore
from flowapp.bench.measure import Figure
from flowapp.bench.rig import Rig
from flowapp.settings import Settings

FIGURES: dict[str, Callable[[Rig, float], list[Figure]]] = {
    "edge": figures.edge_figure,
    "stock": figures.stock_figure,
    "intake": figures.intake_figure,
    "agent_signal": figures.agent_signal_figure,
    "agent_all": figures.agent_all_figure,
    "hot": figures.hot_figure,
    "burst": figures.burst_figure,
    "latency_ms": latency.latency_figure,
    "restore": restore.restore_figure,
    "memory": figures.memory_figure,
}
GIGABYTE = 1 << 30


def add_parser(commands: Any) -> None:
    """Declare `flow bench`."""
    parser = commands.add_parser("bench", help="measure this machine", description=__doc__)
    parser.add_argument("--only", metavar="NAMES", help=f"some of {', '.join(FIGURES)}, separated by commas")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there as JSON")
    parser.add_argument("--scale", type=_scale, default=1.0, metavar="X", help="share of the records; figures of a small share are rough")
    parser.add_argument("--profile", action="store_true", help="show where an agent's time goes, by stage")
    parser.set_defaults(run=run)


def _scale(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"was {text!r}; allowed: a number > 0 and <= 1")
    return value


def _chosen(text: str | None) -> list[str]:
    names = [name.strip() for name in text.split(",")] if text else list(FIGURES)
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        raise SystemExit(f"flow bench: --only was {text!r}; allowed: {', '.join(FIGURES)}")
    return names


def run(args: argparse.Namespace) -> int:
    """Measure and show; exit code 0 says that it was measured, not that a target was met."""
    names = _chosen(args.only)
    console = Console()
    found: list[Figure] = []
    with ExitStack() as stack:
        rig = Rig(Settings.load(), stack)
        for name in names:
            with console.status(f"measuring {name}"):
                measured = FIGURES[name](rig, args.scale)
            found += measured
            for figure in measured:
                console.print(_line(figure), highlight=False)
    console.print(table(found))
    if args.profile:
        console.print(profile(found))
    if args.json:
        document = {"machine": machine(), "scale": args.scale, "figures": [figure.as_json() for figure in found]}
        args.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def machine() -> dict[str, Any]:
    """Describe what was measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / GIGABYTE),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _line(figure: Figure) -> str:
    return f"{figure.name}: {_number(figure.value)} {figure.unit}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


COLUMNS = ("figure", "value", "unit", "target", "met", "records", "poll", "passed", "CPU s / million", "peak MB", "outputs", "checkpoints")


def table(found: list[Figure]) -> Table:
    """Return the figures as a table."""
    shown = Table(*COLUMNS)
    for figure in found:
        shown.add_row(*_cells(figure))
    return shown


def _cells(figure: Figure) -> list[str]:
    met = {True: "yes", False: "NO", None: ""}[figure.met]
    target = "" if figure.target is None else f"{'>=' if figure.better == 'more' else '<='} {_number(figure.target)}"
    rest = (figure.detail.get(name) for name in ("poll_records", "share_passed"))
    cost = (figure.cpu_seconds_per_million, figure.peak_mb, figure.detail.get("outputs"), figure.detail.get("checkpoints"))
    numbers = [_number(value) for value in (*rest, *cost)]
    return [figure.name, _number(figure.value), figure.unit, target, met, f"{figure.records:,}", *numbers]


def profile(found: list[Figure]) -> Table:
    """Return seconds by stage of the figures that have them."""
    with_stages = [figure for figure in found if figure.detail.get("stage_seconds")]
    stages = sorted({stage for figure in with_stages for stage in figure.detail["stage_seconds"]})
    shown = Table("figure", *stages, title="seconds by stage")
    for figure in with_stages:
        shown.add_row(figure.name, *(f"{figure.detail['stage_seconds'].get(stage, 0.0):.2f}" for stage in stages))
    return shown
