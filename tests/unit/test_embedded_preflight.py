"""What set-up checks before it changes anything."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from collections import namedtuple

import pytest

from flowapp.embedded import preflight

Usage = namedtuple("Usage", "free")


def test_this_machine_passes() -> None:
    assert preflight.problems() == []


def test_an_old_python_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    (problem,) = preflight.problems()
    assert problem.startswith("Python was 3.9 at ")
    assert problem.endswith("needed: 3.11 or later. Install one and name it: make up PYTHON=python3.12")


def test_everything_that_is_missing_is_said_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 << 20))
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert preflight.main() == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said] == ["missing"] * 3
    assert "no venv module" in said[0]
    assert "git was not found" in said[1]
    assert "free disk space was 100 MB; needed: 3000 MB" in said[2]


def test_little_memory_is_a_note_and_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 1 << 18)
    assert preflight.warnings() == ["memory was 1024 MB; the whole stack wants 2500 MB"]


def test_the_check_itself_can_be_read_by_an_old_python() -> None:
    with open(preflight.__file__, encoding="utf-8") as file:
        tree = ast.parse(file.read(), feature_version=(3, 6))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert all(function.returns is None for function in functions)
