"""The supervisor with small stand-ins for the parts."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from flowapp.embedded import runfile, supervisor
from flowapp.embedded.process import Command
from flowapp.embedded.supervisor import Reporter, Supervisor, supervise
from flowapp.errors import PortTaken, StackError
from tests.conftest import free_port_offset
from tests.waiting import eventually

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
SCOPE = "infra"


class StandIn:
    """A part that is a few lines of Python."""

    def __init__(
        self, name: str, code: str = SLEEPER, ready: Callable[[], bool] = lambda: True, ports: Mapping[str, int] | None = None
    ) -> None:
        self.name, self.code, self.ready, self.ports = name, code, ready, ports or {}
        self.starts = 0

    def prepare(self) -> None:
        self.starts += 1

    def command(self) -> Command:
        return Command(self.name, (sys.executable, "-c", self.code))

    def is_ready(self) -> bool:
        return self.ready()


class Bench:
    """A supervisor in a thread, and what it says."""

    def __init__(self, home: Path) -> None:
        self.out = io.StringIO()
        self.reporter = Reporter(self.out, home)
        self.supervisor = Supervisor(home, self.reporter)
        self.error: BaseException | None = None
        self.thread: threading.Thread | None = None

    def run(self, *services: tuple[StandIn, bool]) -> None:
        def boot(supervisor: Supervisor) -> None:
            for service, finishes in services:
                supervisor.add(service, SCOPE, finishes)

        def body() -> None:
            try:
                supervise(self.supervisor, boot)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=body)
        self.thread.start()

    def wait(self) -> None:
        assert self.thread is not None
        self.thread.join(60)
        assert not self.thread.is_alive()

    def finish(self) -> None:
        self.supervisor.stop.set()
        if self.thread is not None:
            self.wait()
        self.reporter.close()

    def said(self, text: str) -> bool:
        return text in self.out.getvalue()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE_SECONDS", 0.05)
    bench = Bench(tmp_path)
    yield bench
    bench.finish()


def test_parts_start_in_order_each_after_the_one_before_is_ready(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "first-is-ready"
    first = StandIn("first", f"import time,pathlib; time.sleep(0.3); pathlib.Path({str(marker)!r}).touch(); time.sleep(600)", marker.exists)
    second = StandIn("second", f"import pathlib; assert pathlib.Path({str(marker)!r}).exists(); {SLEEPER}")
    bench.run((first, False), (second, False))
    eventually(lambda: bench.said("second runs"))
    bench.finish()
    lines = [line.split(maxsplit=2)[2] for line in bench.out.getvalue().splitlines()]
    assert [line.partition(" (")[0] for line in lines] == ["first runs", "second runs", "second stopped", "first stopped"]


def test_a_part_that_dies_is_started_again_with_a_visible_line(bench: Bench, tmp_path: Path) -> None:
    service = StandIn("worker")
    bench.run((service, False))
    eventually(lambda: bench.said("worker runs"))
    before = runfile.read(tmp_path, SCOPE)[0].pid
    os.kill(before, signal.SIGKILL)
    eventually(lambda: service.starts == 2 and len(runfile.read(tmp_path, SCOPE)) == 1)
    assert bench.said("WARNING: worker was killed by SIGKILL; starting it again in 0.01 s")
    assert runfile.read(tmp_path, SCOPE)[0].pid != before


def test_a_part_that_dies_again_and_again_ends_the_stack_with_its_reason(bench: Bench) -> None:
    steady, broken = StandIn("steady"), StandIn("broken", "print('ERROR no disk'); raise SystemExit(1)")
    bench.run((steady, False), (broken, False))
    bench.wait()
    assert isinstance(bench.error, StackError)
    assert "broken" in str(bench.error)
    assert "no disk" in str(bench.error)
    assert bench.said("steady stopped")


def test_a_part_that_refuses_is_not_started_again(bench: Bench) -> None:
    service = StandIn("edge", "import time; time.sleep(0.3); print('flow: RULES was x; allowed: y'); raise SystemExit(2)")
    bench.run((service, False))
    bench.wait()
    assert isinstance(bench.error, StackError)
    assert "the edge refused to run: flow: RULES was x; allowed: y" in str(bench.error)
    assert service.starts == 1


def test_a_part_that_finishes_leaves_the_others_running(bench: Bench) -> None:
    worker, edge = StandIn("worker"), StandIn("edge", "import time; time.sleep(0.3); print('file done')")
    bench.run((worker, False), (edge, True))
    eventually(lambda: bench.said("edge has finished: file done"))
    assert edge.starts == 1
    assert bench.thread is not None
    assert bench.thread.is_alive()


def test_stopping_during_a_start_leaves_nothing_behind(bench: Bench, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    slow = StandIn("slow", f"import time,pathlib; pathlib.Path({str(marker)!r}).touch(); time.sleep(600)", lambda: False)
    bench.run((StandIn("steady"), False), (slow, False))
    eventually(marker.exists)
    bench.finish()
    assert bench.error is None
    assert runfile.read(tmp_path, SCOPE) == []
    assert bench.said("steady stopped")


def test_a_taken_port_is_named_with_its_part_and_the_way_out(bench: Bench) -> None:
    port = 9464 + free_port_offset()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        bench.run((StandIn("worker", ports={"metrics port": port}), False))
        bench.wait()
    assert isinstance(bench.error, PortTaken)
    assert f"port {port} on 127.0.0.1 (metrics port of the worker)" in str(bench.error)
    assert "FLOW_PORT_OFFSET" in str(bench.error)


def test_warnings_of_parts_are_shown_and_the_rest_is_in_their_logs(bench: Bench, tmp_path: Path) -> None:
    bench.run((StandIn("worker", f"print('WARNING late'); print('all is well'); {SLEEPER}"), False))
    eventually(lambda: bench.said("late"))
    eventually(lambda: "all is well" in (tmp_path / "logs" / "worker.log").read_text())
    assert not bench.said("all is well")


def test_a_part_that_repeats_itself_is_shown_once(bench: Bench) -> None:
    bench.run(
        (StandIn("watch", f"print('no prints yet'); print('no prints yet'); print('12 passed'); print('no prints yet'); {SLEEPER}"), True)
    )
    eventually(lambda: bench.said("up"))
    assert [line.split(maxsplit=2)[2] for line in bench.out.getvalue().splitlines() if " watch " in line and "runs" not in line] == [
        "no prints yet",
        "12 passed",
        "no prints yet",
        "up",
    ]


def test_what_a_killed_stack_left_is_ended_by_the_next(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as orphan:
        kept = runfile.Process.of("broker", orphan.pid, {"client port": 1})
        stranger = runfile.Process("edge", os.getpid(), 1.0, {})
        runfile.write(tmp_path, SCOPE, [kept, stranger])
        assert runfile.read(tmp_path, SCOPE) == [kept]
        assert runfile.end_leftovers(tmp_path, SCOPE) == ["broker"]
        assert not psutil.pid_exists(orphan.pid)
    assert runfile.read(tmp_path, SCOPE) == []
