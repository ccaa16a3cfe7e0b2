"""Child processes: their output, their end, and that none outlives us."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flowapp.embedded.process import Child, Command, describe_exit
from flowapp.logs import Record
from tests.waiting import eventually

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"


def python(name: str, code: str) -> Command:
    return Command(name, (sys.executable, "-c", code))


def test_every_line_of_a_child_becomes_a_json_object_in_its_log(tmp_path: Path) -> None:
    seen: list[Record] = []
    code = "import sys; print('out'); print('ERROR bad', file=sys.stderr); print('caf\\u00e9'.encode('latin-1'), flush=True)"
    child = Child(python("thing", code), tmp_path / "thing.log", seen.append)
    eventually(lambda: not child.alive)
    child.stop()
    rows = [json.loads(line) for line in (tmp_path / "thing.log").read_text().splitlines()]
    assert {row["msg"] for row in rows} == {record.msg for record in seen} == {"out", "ERROR bad", "b'caf\\xe9'"}
    assert all(set(row) == {"level", "service", "msg", "ts", "context"} and row["service"] == "thing" for row in rows)
    assert child.last_words() == "ERROR bad"
    assert child.exit_code == 0


def test_a_child_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    child = Child(python("stubborn", STUBBORN), tmp_path / "log")
    eventually(lambda: len(child.tail) == 1)
    assert child.stop(seconds=0.2) is False
    assert child.exit_code == -signal.SIGKILL
    assert describe_exit(child.exit_code) == "was killed by SIGKILL"


def test_a_child_that_obeys_ends_by_itself(tmp_path: Path) -> None:
    child = Child(python("good", "import time; print('ready', flush=True); time.sleep(600)"), tmp_path / "log")
    eventually(lambda: len(child.tail) == 1)
    assert child.stop() is True
    assert describe_exit(child.exit_code) == "was killed by SIGTERM"


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    code = f"import subprocess,sys,time; p=subprocess.Popen([sys.executable,'-c',{STUBBORN!r}]); print(p.pid, flush=True); time.sleep(600)"
    child = Child(python("parent", code), tmp_path / "log")
    eventually(lambda: len(child.tail) >= 1)
    grandchild = int(next(record.msg for record in child.tail if record.msg.isdigit()))
    child.stop()
    eventually(lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ties a child's life to its parent's")
def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import sys,time,pathlib\n"
        "from flowapp.embedded.process import Child, Command\n"
        f"child = Child(Command('c', (sys.executable, '-c', 'import time; time.sleep(600)')), pathlib.Path({str(tmp_path / 'log')!r}))\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_packets_go_to_our_own_output_and_only_errors_to_the_log(tmp_path: Path) -> None:
    code = (
        "import sys,pathlib\n"
        "from flowapp.embedded.process import Child, Command\n"
        "inner = \"import sys; print('packet'); print('trouble', file=sys.stderr)\"\n"
        f"child = Child(Command('watch', (sys.executable, '-c', inner), shows_output=True), pathlib.Path({str(tmp_path / 'log')!r}))\n"
        "child._process.wait()\n"
        "child.stop()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "packet\n"
    assert json.loads((tmp_path / "log").read_text())["msg"] == "trouble"
