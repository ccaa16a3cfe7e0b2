"""`flow ingest`: what it is told, and what it shows."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import pytest

from flowapp.edge.command import effective_settings, parse_partitions
from flowapp.edge.feeds import open_feeds, sorted_by_kind
from flowapp.edge.ingest import Counts
from flowapp.edge.progress import Bar, Lines
from flowapp.errors import SettingError, SourceError
from tests.mocks.edge import memory_settings
from tests.unit.test_files_thetadata import OPTION_HEADER, OPTION_LINE


def option_file(folder: Path) -> Path:
    path = folder / "spy.csv"
    path.write_text(f"{OPTION_HEADER}\n{OPTION_LINE}\n")
    return path


def stock_file(folder: Path) -> Path:
    path = folder / "SPY_trades.csv"
    path.write_text(f"{OPTION_HEADER.split(',', 4)[4]}\n{OPTION_LINE.split(',', 4)[4]}\n")
    return path


def words(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"file": None, "speed": None, "options": None, "equities": None, **values})


@pytest.mark.parametrize(("text", "expected"), [(None, [0, 1, 2, 3]), ("0-2", [0, 1, 2]), ("3", [3]), ("2, 0-1", [0, 1, 2])])
def test_partitions_are_numbers_and_ranges(text: str | None, expected: list[int]) -> None:
    assert parse_partitions(text, 4) == expected


@pytest.mark.parametrize("text", ["4", "2-1", "a", "0-", "-1", "1,,2"])
def test_what_is_no_partition_is_named(text: str) -> None:
    with pytest.raises(SettingError, match="--partitions was"):
        parse_partitions(text, 4) if text != "0-" else parse_partitions("0-x", 4)


def test_a_file_turns_the_other_feed_off_unless_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    alone = effective_settings(words(file=str(option_file(tmp_path))))
    assert (alone.options_ingest_adapter, alone.equities_ingest_adapter) == ("files", "none")
    assert alone.namespace == "tape_spy"
    stock = effective_settings(words(file=str(stock_file(tmp_path)), speed=3.0))
    assert (stock.options_ingest_adapter, stock.equities_ingest_adapter, stock.flow_speed) == ("none", "files", 3.0)
    both = effective_settings(words(file=f"{option_file(tmp_path)},{stock_file(tmp_path)}"))
    assert (both.options_ingest_adapter, both.equities_ingest_adapter) == ("files", "files")


def test_a_stock_recording_named_as_options_feed_alone_is_put_right(tmp_path: Path) -> None:
    path = str(stock_file(tmp_path))
    named = memory_settings(options_ingest_adapter="files", equities_ingest_adapter="none", options_files=(path,))
    assert sorted_by_kind(named).equities_files == (path,)
    wrong = memory_settings(options_ingest_adapter="files", equities_ingest_adapter="synthetic", options_files=(path,))
    with pytest.raises(SourceError, match="OPTIONS_FILES holds equities; allowed: options"):
        open_feeds(wrong, 0)


def test_a_feed_of_several_files_has_no_order_for_ties_and_its_own_run(tmp_path: Path) -> None:
    first, second = option_file(tmp_path), tmp_path / "other.csv"
    second.write_text(f"{OPTION_HEADER}\n{OPTION_LINE}\n{OPTION_LINE}\n")
    values: dict[str, Any] = {"options_ingest_adapter": "files", "equities_ingest_adapter": "none"}
    one = open_feeds(memory_settings(**values, options_files=(str(first),)), None)
    two = open_feeds(memory_settings(**values, options_files=(str(first), str(second))), None)
    assert one.options is not None
    assert two.options is not None
    assert (one.options.ordered, two.options.ordered) == (True, False)
    assert one.run == one.files[0].digest
    assert len(two.run) == 8
    assert two.run not in {file.digest for file in two.files}


def test_progress_outside_a_terminal_is_a_log_line_with_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flowapp.edge"), Lines(seconds=0.0) as show:
        show(Counts(events=1000, refused=2, newest_ts=1_718_371_800_000, progress=0.25))
    text = caplog.records[0].getMessage()
    assert text.startswith("reading 1,000 events, ")
    assert "up to 2024-06-14 13:30:00, 25%" in text
    assert "s left, 2 refused" in text
    assert caplog.records[0].__dict__["context"]["events"] == 1000
    assert caplog.records[-1].getMessage().startswith("read 1,000 events")


def test_progress_in_a_terminal_is_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("spy.csv") as show:
        show(Counts(events=1234, newest_ts=1_718_371_800_000, progress=0.5))
    text = capsys.readouterr().err
    assert "spy.csv" in text
    assert "1,234" in text
