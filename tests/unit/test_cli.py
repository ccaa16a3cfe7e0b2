"""The `flow` command itself: lazy modules, exit codes, errors in one line."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from flowapp import cli
from flowapp.errors import BrokerUnavailable, FlowError, SettingError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command `probe` whose module does what the test puts into `module.behave`."""
    module: Any = ModuleType("tests.probe_command")

    def add_parser(subparsers: Any) -> None:
        parser = subparsers.add_parser("probe")
        parser.add_argument("--count", type=int, default=0)
        parser.set_defaults(run=lambda args: module.behave(args))

    module.add_parser = add_parser
    monkeypatch.setitem(sys.modules, "tests.probe_command", module)
    monkeypatch.setitem(cli.COMMANDS, "probe", ("tests.probe_command", "probes"))
    return module


def behave(module: Any, result: int | BaseException | None) -> list[Any]:
    seen: list[Any] = []

    def body(args: Any) -> int | None:
        seen.append(args)
        if isinstance(result, BaseException):
            raise result
        return result

    module.behave = body
    return seen


def test_a_command_gets_its_arguments_and_gives_its_exit_code(command: Any) -> None:
    seen = behave(command, 5)
    assert cli.main(["probe", "--count", "3"]) == 5
    assert seen[0].count == 3
    behave(command, None)
    assert cli.main(["probe"]) == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingError("RULES was x; allowed: y"), 2),
        (BrokerUnavailable("no broker"), 1),
        (FlowError("other"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_of_ours_are_one_line_and_tell_whether_to_try_again(
    command: Any, error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    behave(command, error)
    assert cli.main(["probe"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (f"flow: {error}\n" if isinstance(error, FlowError) else "")


def test_a_bug_is_not_hidden(command: Any) -> None:
    behave(command, ValueError("bug"))
    with pytest.raises(ValueError, match="bug"):
        cli.main(["probe"])


def test_help_names_every_command_without_importing_their_modules() -> None:
    code = (
        "import sys\nfrom flowapp import cli\ntry:\n    cli.main(['-h'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'faust', 'polars', 'confluent_kafka', 'flowapp.status', 'flowapp.embedded.command'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in cli.COMMANDS:
        assert f"\n    {name}" in done.stdout


def test_an_unknown_command_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["fly"])
    assert caught.value.code == 2
    assert "ingest" in capsys.readouterr().err


def test_a_reader_that_has_enough_ends_the_command_quietly() -> None:
    with subprocess.Popen([sys.executable, "-m", "flowapp.cli", "settings"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_settings_are_shown_with_value_default_and_meaning(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TICK_MS", "500")
    assert cli.main(["settings"]) == 0
    out = capsys.readouterr().out
    assert "TICK_MS=500   (default: 250)\n    multiples at which ticks stand, event time, ms; a whole number >= 1 and <= 60000\n" in out
