"""Log lines of every kind of child."""

from __future__ import annotations

import io
import json
import logging

import pytest

from flowapp.logs import JsonFormatter, Record, configure, parse


def test_our_own_lines_keep_their_fields() -> None:
    line = '{"level":"ERROR","service":"broker","msg":"disk full","ts":"2026-01-02T03:04:05.678Z","context":{"logger":"Log"}}'
    assert parse(line, "other") == Record("ERROR", "broker", "disk full", "2026-01-02T03:04:05.678Z", {"logger": "Log"})


def test_a_foreign_json_line_is_read_by_its_usual_names() -> None:
    line = '{"timestamp":"2026-01-02T03:04:05Z","sequence":9,"level":"WARN","loggerName":"io.q","message":"slow","hostName":"h"}'
    assert parse(line, "registry") == Record("WARNING", "registry", "slow", "2026-01-02T03:04:05Z", {"loggerName": "io.q"})


@pytest.mark.parametrize(
    ("line", "level"),
    [("[2026-01-02 03:04:05] [1] [ERROR] [^Worker]: crashed", "ERROR"), ("plain words", "INFO"), ("{not json", "INFO"), ("[1, 2]", "INFO")],
)
def test_text_is_kept_as_it_is_with_the_level_it_names(line: str, level: str) -> None:
    record = parse(line + "\n", "worker")
    assert (record.level, record.service, record.msg) == (level, "worker", line)


def test_colours_are_taken_off() -> None:
    assert parse("\x1b[31mred\x1b[0m", "worker").msg == "red"


def test_a_record_is_one_json_object_on_one_line() -> None:
    text = Record("INFO", "edge", "two\nlines", "t", {"n": 1}).to_json()
    assert "\n" not in text
    assert json.loads(text) == {"level": "INFO", "service": "edge", "msg": "two\nlines", "ts": "t", "context": {"n": 1}}


def test_a_person_sees_time_service_and_level_only_when_it_matters() -> None:
    assert Record("INFO", "edge", "begins", "no time").to_text() == "--:--:-- edge      begins"
    assert (
        Record("ERROR", "edge", "Traceback\n  x\nValueError: y", "no time").to_text()
        == "--:--:-- edge      ERROR: Traceback ... ValueError: y"
    )


def test_python_logging_becomes_the_same_line() -> None:
    formatter = JsonFormatter("worker")
    record = logging.LogRecord("flowapp.x", logging.WARNING, "f", 1, "lag %d", (5,), None)
    record.context = {"partition": 3}
    parsed = parse(formatter.format(record), "other")
    assert (parsed.level, parsed.service, parsed.msg, parsed.context) == (
        "WARNING",
        "worker",
        "lag 5",
        {"logger": "flowapp.x", "partition": 3},
    )


def test_configuring_replaces_what_logging_had() -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    out = io.StringIO()
    try:
        configure("edge", out=out)
        logging.getLogger("flowapp.any").info("hello")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert json.loads(out.getvalue())["msg"] == "hello"
