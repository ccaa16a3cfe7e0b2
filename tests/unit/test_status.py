"""How `flow status` words what it found."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition

from flowapp import status
from flowapp.embedded import runfile
from flowapp.status import Lag, PartStatus, Status


def told(parts: list[PartStatus], lags: list[Lag] | None = None, rates: dict[str, float] | None = None) -> Status:
    return Status("/home", "demo", "127.0.0.1:19092", "http://127.0.0.1:18081", parts, lags or [], rates or {}, ["w on /127.0.0.1"])


def test_columns_are_aligned_under_each_other() -> None:
    assert status.columns([("a", "long name", "x"), ("bb", "y", "")]) == "a   long name  x\nbb  y"


def test_a_person_sees_parts_lag_and_the_topics_that_move() -> None:
    parts = [PartStatus("broker", "running", 12, {"client port": 19092}, 300 << 20), PartStatus("worker", "stopped")]
    lags = [
        Lag("equities", 0, None, 5, 5),
        Lag("equities", 1, None, 6, 6),
        Lag("options", 0, 200, 1200, 1000),
        Lag("options", 1, None, 7, 7),
    ]
    text = status.to_text(told(parts, lags, {"demo.flow.packets": 1234.4, "demo.ops.runs": 0.0}))
    assert "broker  running  pid 12  300 MB  client port 19092" in text
    assert [line.split() for line in text.splitlines() if line.startswith(("options", "equities"))] == [
        ["options", "0", "200", "1,200", "1,000"],
        ["options", "1", "-", "7", "7"],
        ["equities", "all", "none", "yet", "11", "11"],
    ]
    assert "demo.flow.packets  1,234/s" in text
    assert "ops.runs" not in text
    assert text.endswith("workers: w on /127.0.0.1")


@pytest.mark.parametrize(
    ("broker", "registry", "healthy"),
    [("running", "running", True), ("external", "running", True), ("not answering", "running", False), ("running", "stopped", False)],
)
def test_it_is_healthy_when_broker_and_registry_answer(broker: str, registry: str, healthy: bool) -> None:
    assert told([PartStatus("broker", broker), PartStatus("registry", registry), PartStatus("worker", "stopped")]).healthy is healthy


@pytest.mark.parametrize(
    ("known", "answers", "embedded", "state"),
    [
        (True, True, True, "running"),
        (True, False, True, "not answering"),
        (False, True, True, "external"),
        (False, False, True, "stopped"),
        (False, True, False, "external"),
        (False, False, False, "not answering"),
    ],
)
def test_a_servers_state_follows_from_its_process_and_its_port(known: bool, answers: bool, embedded: bool, state: str) -> None:
    processes = {"broker": runfile.Process("broker", 1, 0.0, {"client port": 5})} if known else {}
    assert status._server("broker", processes, answers, embedded, 5).state == state


def test_before_the_first_commit_everything_is_lag() -> None:
    assert status._lag("options", TopicPartition("t", 3, -1001), 40) == Lag("options", 3, None, 40, 40)
    assert status._lag("options", TopicPartition("t", 3, 15), 40) == Lag("options", 3, 15, 40, 25)
