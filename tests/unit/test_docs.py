"""Every command that the README shows is run by a test, and what it says of the repository is so."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from flowapp import cli
from flowapp.settings import variable_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# A command as the README shows it (options and arguments dropped): the test that runs it.
RUN_BY = {
    "make up": "tests/integration/test_stack.py::test_make_up_shows_packets_until_ctrl_c",
    "make test": ".ci/run",
    "make bench": "tests/integration/test_bench.py",
    "flow up": "tests/integration/test_stack.py::test_a_fresh_machine_shows_packets_survives_a_killed_worker_and_goes_on_after_ctrl_c",
    "flow watch": "tests/integration/test_stack.py::test_a_fresh_machine_shows_packets_survives_a_killed_worker_and_goes_on_after_ctrl_c",
    "flow status": "tests/integration/test_namespace_commands.py::test_status_as_json_has_every_part_and_a_rate_for_every_topic",
    "flow ingest": "tests/integration/test_stack.py::test_services_run_on_an_infra_that_runs_already",
    "faust": "tests/integration/test_stack.py::test_services_run_on_an_infra_that_runs_already",
    "flow init": "tests/integration/test_namespace_commands.py::test_init_may_be_run_again_and_says_what_it_did",
    "flow reset": "tests/integration/test_namespace_commands.py::test_reset_deletes_topics_offsets_and_local_state_after_asking",
    "flow state": "tests/integration/test_refusals.py",
    "flow schemas": "tests/unit/test_registry.py::test_the_command_registers_lists_and_checks",
    "flow bench": "tests/integration/test_bench.py",
    "flow settings": "tests/unit/test_cli.py::test_settings_are_shown_with_value_default_and_meaning",
}


def commands() -> set[str]:
    """Return program and first word of every command in the README."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    found = set()
    for line in [*blocks.splitlines(), *re.findall(r"`([^`\n]+)`", README)]:
        words = [word for word in line.split() if not re.fullmatch(r"[A-Z_]+=\S*", word)]
        if words and Path(words[0]).name in ("make", "flow", "faust") and len(words) > 1:
            program = Path(words[0]).name
            found.add(program if program == "faust" else f"{program} {words[1]}")
    return found


def test_the_table_has_every_command_of_the_readme_and_no_other() -> None:
    assert commands() == set(RUN_BY)


@pytest.mark.parametrize("command", sorted(RUN_BY))
def test_the_test_that_runs_a_command_is_there(command: str) -> None:
    path, _, name = RUN_BY[command].partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {name}(" in text if name else True


def test_the_readme_names_every_flow_command() -> None:
    assert {f"flow {name}" for name in cli.COMMANDS} <= commands()


def test_every_make_target_of_the_readme_exists_and_a_dry_run_of_it_works() -> None:
    for command in commands():
        program, _, target = command.partition(" ")
        if program == "make":
            done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_every_setting_that_the_readme_names_exists() -> None:
    ours = {name for name, *_ in variable_table()}
    named = set(re.findall(r"\b([A-Z]+(?:_[A-Z]+)+)\b", README))
    assert named <= ours, named - ours


def test_make_up_gives_profile_and_file_to_flow_up() -> None:
    done = subprocess.run(["make", "-n", "up", "PROFILE=active", "FILE=my tape.csv"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ".venv/bin/flow up --profile 'active' --file 'my tape.csv'" in done.stdout


def test_a_missing_interpreter_is_one_clear_message() -> None:
    done = subprocess.run(["make", "preflight", "PYTHON=no-such-python"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "missing: no-such-python was not found; needed: Python 3.11 or later" in done.stderr
