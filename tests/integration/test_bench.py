"""`flow bench` on the real broker, with few records: that every figure is measured, not how large it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowapp.settings import Settings
from tests.conftest import Running

FIGURES = ["edge", "intake", "agent_signal", "burst", "restore"]


@pytest.mark.usefixtures("schemas_of_session")
def test_the_bench_measures_on_a_running_stack_and_writes_its_figures_as_json(
    broker: Running, registry: Running, stack_settings: Settings, tmp_path: Path
) -> None:
    target = tmp_path / "figures.json"
    words = ["bench", "--only", ",".join(FIGURES), "--scale", "0.01", "--profile", "--json", str(target)]
    done = subprocess.run(
        [sys.executable, "-m", "flowapp.cli", *words], env=os.environ | stack_settings.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(target.read_text())
    figures = {figure["name"]: figure for figure in document["figures"]}
    assert list(figures) == FIGURES
    assert all(figure["value"] > 0 and figure["records"] > 0 for figure in figures.values())
    agent = figures["agent_signal"]["detail"]
    assert 0 < agent["share_passed"] < 1
    assert min(agent[name] for name in ("outputs", "output_bytes", "checkpoints", "checkpoint_bytes", "poll_records")) > 0
    assert set(agent["stage_seconds"]) >= {"decode", "judge", "fold", "encode", "send", "checkpoint"}
    assert "seconds by stage" in done.stdout
