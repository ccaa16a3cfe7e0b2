"""A namespace is one time line: what is pinned, and what refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowapp.errors import NamespaceError
from flowapp.runs import MemoryRunLog, Pins, config_row, configs
from flowapp.settings import Settings


def settings(home: Path, **values: Any) -> Settings:
    return Settings.load({}, Path("no.env"), flow_home=str(home), **values)


def test_first_edge_pins_everything_and_the_next_start_gets_the_first_ones_clock(tmp_path: Path) -> None:
    log = MemoryRunLog()
    first = Pins.check_or_write(settings(tmp_path), edge=True, log=log, cluster="c1", now_ms=1000)
    second = Pins.check_or_write(settings(tmp_path), edge=True, log=log, cluster="c1", now_ms=2000)
    assert first == second == Pins("c1", 8, "", "synthetic", "synthetic", 1, "realistic/realistic", 1000)
    assert len(log.rows) == 1


def test_a_worker_leaves_the_feeds_to_the_edge(tmp_path: Path) -> None:
    log = MemoryRunLog()
    worker = Pins.check_or_write(settings(tmp_path), log=log, cluster="c1")
    assert worker == Pins("c1", 8, "")
    edge = Pins.check_or_write(settings(tmp_path), edge=True, log=log, cluster="c1", now_ms=5)
    assert Pins.check_or_write(settings(tmp_path), log=log, cluster="c1") == edge


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"topic_partitions": 4}, "TOPIC_PARTITIONS is 8 there and 4 here"),
        ({"topic_placement": (("SPY", 3),)}, "TOPIC_PLACEMENT is '' there and 'SPY=3' here"),
        ({"synthetic_seed": 2}, "SYNTHETIC_SEED is 1 there and 2 here"),
        ({"synthetic_market_mode": "firehose"}, "'realistic/realistic' there and 'firehose/firehose' here"),
        ({"synthetic_start": 999}, "SYNTHETIC_START (ms) is 1000 there and 999 here"),
        ({"options_ingest_adapter": "files", "equities_ingest_adapter": "none"}, "the options feed is 'synthetic' there and 'files' here"),
        ({"equities_ingest_adapter": "none"}, "the equities feed is 'synthetic' there and 'none' here"),
    ],
)
def test_a_process_that_differs_is_refused_and_told_what_to_do(tmp_path: Path, values: dict[str, Any], named: str) -> None:
    log = MemoryRunLog()
    Pins.check_or_write(settings(tmp_path, flow_namespace="demo"), edge=True, log=log, cluster="c1", now_ms=1000)
    with pytest.raises(NamespaceError) as raised:
        Pins.check_or_write(settings(tmp_path, flow_namespace="demo", **values), edge=True, log=log, cluster="c1")
    assert named in str(raised.value)
    assert "flow reset demo" in str(raised.value)
    assert "FLOW_NAMESPACE" in str(raised.value)
    assert len(log.rows) == 1


def test_real_options_never_stand_beside_synthetic_equities(tmp_path: Path) -> None:
    mixed = settings(tmp_path, options_ingest_adapter="files", options_files=("a.csv",))
    with pytest.raises(NamespaceError, match="EQUITIES_INGEST_ADAPTER to none"):
        Pins.check_or_write(mixed, edge=True, log=MemoryRunLog(), cluster="c1")


def test_another_broker_at_the_same_address_is_noticed(tmp_path: Path) -> None:
    Pins.check_or_write(settings(tmp_path), log=MemoryRunLog(), cluster="c1")
    with pytest.raises(NamespaceError, match=r"cluster c1; the broker at .* is cluster c2"):
        Pins.check_or_write(settings(tmp_path), log=MemoryRunLog(), cluster="c2")


def test_a_log_that_is_gone_while_state_is_kept_is_refused(tmp_path: Path) -> None:
    Pins.check_or_write(settings(tmp_path), log=MemoryRunLog(), cluster="c1")
    with pytest.raises(NamespaceError, match="its log on the broker is gone"):
        Pins.check_or_write(settings(tmp_path), log=MemoryRunLog(), cluster="c1")


def test_configurations_are_appended_in_order_of_their_offsets() -> None:
    log = MemoryRunLog()
    log.write([config_row("options", 3, offset, "standard", f"h{offset}", 1, True, "{}") for offset in (900, 0, 100)])
    log.write([config_row("options", 4, 5, "standard", "other", 1, True, "{}")])
    assert [row["config"] for row in configs(log.read_all(), "options", 3)] == ["h0", "h100", "h900"]
    assert all(row["ts"] > 0 and row["sources"] == [] for row in log.rows)
