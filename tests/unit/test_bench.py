"""How figures are computed and shown."""

from __future__ import annotations

import pytest

from flowapp.bench.command import FIGURES, profile, table
from flowapp.bench.drain import Drained
from flowapp.bench.latency import ProduceTimes
from flowapp.bench.measure import Figure, Progress
from flowapp.cli import parser_for
from flowapp.errors import StackError


def test_the_moment_at_which_records_were_committed_is_linear_between_samples() -> None:
    progress = Progress([(10.0, 0), (11.0, 100), (12.0, 100), (13.0, 300)])
    assert [progress.moment_of(records) for records in (0, 50, 100, 200, 300)] == [10.0, 10.5, 11.0, 12.5, 13.0]


def test_a_figure_is_met_when_it_is_on_the_right_side_of_its_target() -> None:
    assert Figure("a", "records/s", 120_000, 120_000).met is True
    assert Figure("a", "records/s", 119_999, 120_000).met is False
    assert Figure("b", "ms", 100.1, 100.0, better="less").met is False
    assert Figure("c", "records/s", 1.0).met is None


def drained(**counters: float) -> Drained:
    return Drained(1000, Progress([(0.0, 0), (10.0, 1000)]), [], {f"{name}{{agent=options}}": value for name, value in counters.items()})


def test_an_agent_that_wrote_nothing_has_no_figure() -> None:
    with pytest.raises(StackError, match="zero flow_outputs_total, flow_output_bytes_total"):
        drained(flow_checkpoints_total=3, flow_checkpoint_bytes_total=10).check_outputs("agent_all")


def test_an_agent_that_refused_records_has_no_figure() -> None:
    counters = dict.fromkeys(
        ("flow_outputs_total", "flow_checkpoints_total", "flow_checkpoint_bytes_total", "flow_output_bytes_total"), 1.0
    )
    with pytest.raises(StackError, match="dead letters 2"):
        drained(**counters, flow_dead_letters_total=2).check_outputs("agent_all")


def test_the_produce_time_of_a_record_is_that_of_the_call_that_sent_it() -> None:
    times = ProduceTimes()
    times.note("options.prints", [b""] * 3, [0, 1, 0])
    times.note("options.nbbo", [b""], [0])
    times.note("options.prints", [b""] * 2, [0, 0])
    assert times.firsts == {0: [0, 2], 1: [0]}
    assert [times.of(0, offset) for offset in range(4)] == [times.moments[0][0]] * 2 + [times.moments[0][1]] * 2


def test_the_table_has_a_row_for_every_figure_and_the_profile_for_those_with_stages() -> None:
    found = [Figure("agent_all", "records/s", 130_000.0, 120_000, detail={"stage_seconds": {"fold": 1.5}}), Figure("edge", "events/s", 1.0)]
    assert table(found).row_count == 2
    assert [column.header for column in profile(found).columns] == ["figure", "fold"]


def test_a_figure_nobody_knows_is_refused_with_those_there_are() -> None:
    words = ["bench", "--only", "edge,speed"]
    args = parser_for(words).parse_args(words)
    with pytest.raises(SystemExit, match=f"--only was 'edge,speed'; allowed: {', '.join(FIGURES)}"):
        args.run(args)
