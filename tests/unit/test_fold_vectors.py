"""The reference's own outputs, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vectors.compare import DIRECTORY, KINDS, LATER, SUFFIX, main, score


@pytest.mark.parametrize(("kind", "cases"), [("nbbo_side", 1500), ("signal_decision", 1500), ("packet_and_print_filters", 1000)])
def test_every_line_equals_the_reference(kind: str, cases: int) -> None:
    assert score(DIRECTORY / f"{kind}{SUFFIX}") == (cases, [])


def test_the_command_runs_the_built_kinds_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(KINDS)


def test_the_command_says_what_is_not_built_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(DIRECTORY / f"{LATER[0]}{SUFFIX}")]) == 2
    assert capsys.readouterr().out == f"{LATER[0]}: not yet\n"


def test_the_command_fails_on_a_case_that_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gzip

    path = tmp_path / f"nbbo_side{SUFFIX}"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write('[1.0, {"bid": 1.0, "ask": 1.2, "ts": 0}, 0, 1500, "B"]\n[1.0, {"bid": 1.0, "ask": 1.2, "ts": 0}, 0, 1500, "A"]\n')
    assert main([str(path)]) == 1
    assert capsys.readouterr().out == "nbbo_side: 2 cases, 1 equal, 1 failing (lines 2)\n"
