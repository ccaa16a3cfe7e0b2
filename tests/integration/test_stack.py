"""`flow up` as a user runs it: packets on standard output, parts that come back, an orderly end, a next start that goes on."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flowapp.settings import Settings
from tests.conftest import NO_DOTENV, free_port_offset, new_home
from tests.mocks.tape import write_tape
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
BOOT_SECONDS = 180.0
PARTS = ("flowapp.core.options", "flowapp.edge.command", "flowapp.watch", "flowapp.worker")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


MISSING = [module for module in PARTS if not _is_there(module)]
whole = pytest.mark.skipif(bool(MISSING), reason=f"not built yet: {', '.join(MISSING)}")


def outer_environment() -> dict[str, str]:
    """Return the environment without what a surrounding make tells its children: to name the folder they work in."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


class Up:
    """A `flow up` in a process of its own, its output collected line by line."""

    def __init__(self, settings: Settings, *arguments: str, command: tuple[str, ...] = (sys.executable, "-m", "flowapp.cli", "up")) -> None:
        self.settings = settings
        self.out: list[str] = []
        self.err: list[str] = []
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env={**outer_environment(), **settings.environment(complete=True)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Iterator[str], lines: list[str]) -> None:
        lines.extend(iter(stream))

    def says(self, text: str, seconds: float = BOOT_SECONDS) -> None:
        def told() -> bool:
            if self.process.poll() is not None and not any(text in line for line in self.err):
                raise AssertionError(f"flow up ended with {self.process.returncode}: {''.join(self.err[-20:])}")
            return any(text in line for line in self.err)

        eventually(told, seconds, f"{text!r} on standard error; it has {''.join(self.err[-20:])!r}")

    def packets(self, count: int) -> None:
        eventually(lambda: len(self.out) >= count, BOOT_SECONDS, f"{count} packets, after {''.join(self.err[-20:])!r},")

    def pid_of(self, part: str) -> int:
        found = [re.search(r"\(pid (\d+)", line) for line in self.err if f" {part} runs" in line]
        assert found, f"{part} does not run"
        assert found[-1] is not None
        return int(found[-1].group(1))

    def end(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            # As a terminal does it: to everyone in the foreground.
            os.killpg(self.process.pid, number)
        code = self.process.wait(120)
        for reader in self._readers:
            reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    home = new_home(tmp_path / "home")
    environ = {"FLOW_HOME": str(home), "FLOW_PORT_OFFSET": str(free_port_offset()), "TOPIC_PARTITIONS": "4"}
    return Settings.load(environ, dotenv=NO_DOTENV)


@pytest.fixture
def up(settings: Settings) -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.end()


def family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def listeners(pid: int) -> set[tuple[str, int]]:
    return {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in family(pid)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def status(settings: Settings) -> dict[str, dict[str, object]]:
    environment = {**os.environ, **settings.environment(complete=True)}
    done = subprocess.run(
        [sys.executable, "-m", "flowapp.cli", "status", "--json"], env=environment, capture_output=True, text=True, check=True
    )
    return {part["name"]: part for part in json.loads(done.stdout)["parts"]}


def test_infra_alone_boots_says_where_it_is_and_ends_on_ctrl_c(settings: Settings, up: list[Up]) -> None:
    first = Up(settings, "--only", "infra")
    up.append(first)
    first.says(f"ready: KAFKA_BOOTSTRAP_SERVERS={settings.bootstrap} SCHEMA_REGISTRY_URL={settings.registry_url}")
    told = status(settings)
    assert (told["broker"]["state"], told["registry"]["state"], told["worker"]["state"]) == ("running", "running", "stopped")
    assert told["broker"]["pid"] == first.pid_of("broker")
    second = Up(settings, "--only", "infra")
    up.append(second)
    assert second.end(0) == 2
    assert f"a stack already runs in {settings.home}" in "".join(second.err)
    members = family(first.process.pid)
    assert first.end() == 0
    assert [line.split(maxsplit=2)[2].strip() for line in first.err[-2:]] == ["registry stopped", "broker stopped"]
    assert not [process for process in members if process.is_running()]


def test_a_broker_that_was_killed_is_started_again(settings: Settings, up: list[Up]) -> None:
    stack = Up(settings, "--only", "infra")
    up.append(stack)
    stack.says("ready: ")
    before = stack.pid_of("broker")
    os.kill(before, signal.SIGKILL)
    stack.says("WARNING: broker was killed by SIGKILL; starting it again in 0.5 s")
    eventually(lambda: stack.pid_of("broker") != before, BOOT_SECONDS, "a new broker")
    assert status(settings)["broker"]["state"] == "running"
    assert stack.end() == 0


def test_services_alone_want_an_infra_that_answers(settings: Settings, up: list[Up]) -> None:
    stack = Up(settings, "--only", "services")
    up.append(stack)
    assert stack.process.wait(120) == 1
    stack.end()
    assert f"no broker answered on {settings.bootstrap}" in "".join(stack.err)
    assert "flow up --only infra" in "".join(stack.err)


@whole
def test_a_fresh_machine_shows_packets_survives_a_killed_worker_and_goes_on_after_ctrl_c(settings: Settings, up: list[Up]) -> None:
    stack = Up(settings, "--profile", "active")
    up.append(stack)
    stack.packets(2)
    assert {ip for ip, _ in listeners(stack.process.pid)} == {"127.0.0.1"}
    expected = {settings.port(base) for base in (19092, 19093, 18081, 18082, 9464)}
    assert {port for _, port in listeners(stack.process.pid)} == expected

    worker = stack.pid_of("worker")
    os.kill(worker, signal.SIGKILL)
    stack.says("WARNING: worker was killed by SIGKILL; starting it again")
    eventually(lambda: stack.pid_of("worker") != worker, BOOT_SECONDS, "a new worker")
    stack.packets(len(stack.out) + 2)

    members = family(stack.process.pid)
    assert stack.end() == 0
    assert not [process for process in members if process.is_running()]
    stops = [line.split(maxsplit=2)[2].strip() for line in stack.err if line.rstrip().endswith(" stopped")]
    assert stops == ["edge stopped", "watch stopped", "worker stopped", "registry stopped", "broker stopped"]

    again = Up(settings, "--profile", "active")
    up.append(again)
    again.says("topics were there")
    again.packets(3)
    assert again.end(signal.SIGTERM) == 0


@whole
def test_services_run_on_an_infra_that_runs_already(settings: Settings, up: list[Up]) -> None:
    infra = Up(settings, "--only", "infra")
    up.append(infra)
    infra.says("ready: ")
    services = Up(settings, "--only", "services", "--profile", "active")
    up.append(services)
    services.packets(1)
    told = status(settings)
    assert {name: part["state"] for name, part in told.items()} == dict.fromkeys(told, "running")
    assert services.end() == 0
    assert infra.process.poll() is None
    assert infra.end() == 0


@whole
def test_a_file_is_shown_once_and_a_second_start_says_that_it_is_done(settings: Settings, up: list[Up], tmp_path: Path) -> None:
    tape = tmp_path / "made up.csv"
    write_tape(tape, prints=12)
    fast = dataclasses.replace(settings, flow_speed=0.0)
    first = Up(fast, "--file", str(tape))
    up.append(first)
    first.says("edge has finished")
    first.packets(12)
    assert first.end() == 0
    assert all("XYZ-2024-06-21-500-C" in line for line in first.out)
    again = Up(fast, "--file", str(tape))
    up.append(again)
    again.says("nothing to do")
    again.packets(12)
    assert again.end() == 0
    assert sorted(again.out) == sorted(first.out)


@whole
@pytest.mark.skipif(not (ROOT / ".venv" / ".installed").exists(), reason="the checkout was not set up by make")
def test_make_up_shows_packets_until_ctrl_c(settings: Settings, up: list[Up]) -> None:
    stack = Up(settings, "up", "PROFILE=active", command=("make",))
    up.append(stack)
    stack.packets(1)
    members = family(stack.process.pid)
    stack.end()
    assert not [process for process in members if process.is_running()]
    assert "broker stopped" in "".join(stack.err)
