"""The ground every figure stands on: a broker, namespaces of its own, workers as processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from flowapp import topic_admin, topics
from flowapp.bench.measure import Group, Usage, stop_process
from flowapp.embedded import infra
from flowapp.errors import BrokerUnavailable, StackError
from flowapp.records.registry import register_all
from flowapp.settings import Settings

AGENT = ("-m", "faust", "-A", "flowapp")
INTAKE = ("-m", "flowapp.bench.nothing", "intake")
STOCK = ("-m", "flowapp.bench.nothing", "stock")
WORKER_WORDS = ("-L", "uvloop", "worker", "--without-web", "--web-host", "127.0.0.1")
READY_SECONDS = 60.0
POLL_SECONDS = 0.1


class Rig:
    """A broker and registry, the user's running ones or embedded ones for the length of the bench."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings = settings
        try:
            topic_admin.cluster_id(topic_admin.admin(settings), settings)
        except BrokerUnavailable:
            stack.enter_context(infra.running(settings))
        register_all(settings)

    @contextmanager
    def namespace(self, name: str, **overrides: Any) -> Iterator[Settings]:
        """Make an empty namespace `bench_<name>` for the length of a `with` block."""
        settings = Settings.load(flow_namespace=f"bench_{name}", **overrides)
        self._delete(settings)
        topic_admin.create(settings)
        try:
            yield settings
        finally:
            self._delete(settings)

    def _delete(self, settings: Settings) -> None:
        topic_admin.delete(settings)
        shutil.rmtree(settings.home / settings.namespace, ignore_errors=True)


@dataclass
class Worker:
    """One worker process, what it uses and what it counted."""

    settings: Settings
    process: subprocess.Popen[bytes]
    usage: Usage
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def metrics(self) -> dict[str, float]:
        """Return its counters as `name{label=value,...}`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.settings.metrics_port}/metrics", timeout=READY_SECONDS) as answer:
            text = answer.read().decode()
        return {
            sample.name + "{" + ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items())) + "}": sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@contextmanager
def worker(settings: Settings, program: Sequence[str] = AGENT) -> Iterator[Worker]:
    """Run a worker for the length of a `with` block."""
    log = settings.home / "logs" / f"bench-worker-{settings.worker_id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *program, *WORKER_WORDS],
            env=os.environ | settings.environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    running = Worker(settings, process, Usage(process.pid), log)
    try:
        yield running
    finally:
        stop_process(process)
        running.usage.stop()


def group_of(settings: Settings) -> Group:
    """Return what the namespace's workers have committed of option prints."""
    return Group(
        settings.bootstrap,
        topics.app_id(settings.namespace),
        topics.full_name(settings.namespace, topics.OPTIONS_PRINTS),
        settings.topic_partitions,
    )


def wait_until_assigned(running: Worker) -> None:
    """Wait until a worker owns partitions.

    Raises:
        StackError: it ended, or it takes too long.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if not running.alive:
            raise StackError(f"the worker ended; its log: {running.log}")
        try:
            if running.metrics().get("flow_assignments_total{agent=options}", 0) > 0:
                return
        except OSError:
            pass
        time.sleep(POLL_SECONDS)
    raise StackError(f"the worker owned no partition after {READY_SECONDS:.0f} s; its log: {running.log}")
