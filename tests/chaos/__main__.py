"""`python -m tests.chaos [--kills 20] [--seed N] [--outage SECONDS]`: the long form of tests/integration/test_exact.py."""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from flowapp import topic_admin
from flowapp.embedded import pins, progress
from flowapp.embedded.download import Downloader
from flowapp.embedded.kafka import Broker
from flowapp.embedded.registry import Registry
from flowapp.records.registry import register_all
from flowapp.settings import Settings
from tests.chaos.scenario import KILLS, Chaos
from tests.conftest import NO_DOTENV, Running, free_port_offset, new_home
from tests.mocks.stack import Stack

ROUND = ("kill", "kill", "wipe", "join", "kill", "broker", "leave", "kill", "pause", "kill")


def main() -> int:
    """Run the course; the exit code tells whether everything was exact and as much was killed as asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="processes to kill or pause past their session")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="of the course of events")
    parser.add_argument("--outage", type=float, default=0.0, metavar="SECONDS", help="at the end take the broker away for so long")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flow-chaos-") as folder:
        return run(Path(folder), args.kills, args.seed, args.outage)


def run(folder: Path, kills: int, seed: int, outage_seconds: float = 0.0) -> int:
    """Start a stack of its own and do the harm."""
    environ = {"FLOW_HOME": str(new_home(folder / "home")), "FLOW_PORT_OFFSET": str(free_port_offset()), "TOPIC_PARTITIONS": "8"}
    settings = Settings.load(environ, dotenv=NO_DOTENV, flow_namespace="chaos", checkpoint_ms=300)
    downloader = Downloader(settings.home, progress.for_stream())
    broker = Running(Broker(settings, downloader.ensure(pins.KAFKA)), settings.home)
    registry = Running(Registry(settings, downloader.ensure(pins.REGISTRY)), settings.home)
    begun = time.monotonic()
    try:
        topic_admin.create(settings)
        register_all(settings)
        stack = Stack(settings, ("options", "equities"))
        try:
            chaos = Chaos(stack, broker, seed, outage_seconds=outage_seconds)
            print(f"seed {seed}, {kills} kills, 2 agents, 8 partitions, broker pid {broker.pid}", flush=True)
            chaos.run([*course(kills, seed), *(["outage"] if outage_seconds else [])])
            repeats = chaos.finish()
            records = sum(sum(stack.ends(agent)) for agent in stack.agents)
        finally:
            stack.close()
    finally:
        registry.stop()
        broker.stop()
    print(f"{records} records, {chaos.kills} of {kills} kills in {time.monotonic() - begun:.0f} s; repeated equal outputs: {repeats}")
    if chaos.kills < kills:
        print(f"FAILED: only {chaos.kills} kills of {kills}", file=sys.stderr)
        return 1
    print("exact: nothing missing, nothing foreign, nothing out of order, state equal")
    return 0


def course(kills: int, seed: int) -> list[str]:
    """Return events with so many kills among them."""
    chance, events, done = random.Random(seed), [], 0
    for number in itertools.count():
        event = ROUND[number] if number < len(ROUND) else chance.choice(ROUND)
        events.append(event)
        done += event in KILLS
        if done == kills:
            return events
    raise AssertionError("never reached")


if __name__ == "__main__":
    os.environ.pop("FLOW_NAMESPACE", None)
    sys.exit(main())
