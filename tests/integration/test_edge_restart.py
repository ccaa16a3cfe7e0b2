"""`flow ingest` on a real broker: killed, split, finished, refused."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowapp import topics
from flowapp.edge.rawlog import KafkaRawLog
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry
from flowapp.runs import read_all
from flowapp.settings import Settings
from tests.conftest import NamespaceFactory, Running
from tests.unit.test_files_thetadata import OPTION_HEADER, OPTION_LINE

RAW = (topics.OPTIONS_PRINTS, topics.OPTIONS_NBBO, topics.EQUITIES_PRINTS, topics.EQUITIES_QUOTES)
LIMIT_SECONDS = 90.0
Log = dict[tuple[str, int], list[bytes]]


def recording(path: Path, lines: int, seed: int = 1) -> Path:
    """Write a recording of option prints with quotes, as ThetaData would have it."""
    chance = random.Random(seed)
    symbols = ("SPY", "AAPL", "MSFT", "NVDA", "TSLA", "SPXW", "AMD", "QQQ", "META", "KO")
    at = 1_718_371_800_000
    rows = [OPTION_HEADER]
    for _ in range(lines):
        at += chance.choice((0, 0, 1, 3, 40))
        second, ms = divmod(at, 1000)
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second)) + f".{ms:03d}+00:00"
        fields = OPTION_LINE.split(",")
        fields[0], fields[2], fields[3] = chance.choice(symbols), f"{chance.randrange(50, 600)}.0", chance.choice(("CALL", "PUT"))
        fields[4] = fields[5] = moment
        fields[12], fields[14] = str(chance.randrange(1, 500)), f"{41.2 + chance.randrange(90) / 100:.2f}"
        rows.append(",".join(fields))
    path.write_text("\n".join(rows) + "\n")
    return path


RUNNING: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def none_left() -> Iterator[None]:
    """End what a failing test leaves running."""
    yield
    while RUNNING:
        process = RUNNING.pop()
        if process.poll() is None:
            process.kill()
        process.communicate()


def edge(settings: Settings, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flowapp.cli", "ingest", *words]
    environ = {**os.environ, **settings.environment(), "PYTHONWARNINGS": "error::ResourceWarning"}
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=settings.home)
    RUNNING.append(process)
    return process


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, text = process.communicate(timeout=LIMIT_SECONDS)
    RUNNING.remove(process)
    return process.returncode, text


def raw_log(settings: Settings, names: tuple[str, ...] = RAW) -> Log:
    log = KafkaRawLog(settings)
    try:
        partitions = range(settings.topic_partitions)
        return {(name, partition): values for name in names for partition, values in log.tails(name, partitions, None).items()}
    finally:
        log.close()


def wait_for_more(settings: Settings, than: int) -> int:
    """Wait until the raw log holds more records than some number; return how many."""
    log = KafkaRawLog(settings)
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            count = sum(log.count(name, partition) for name in RAW for partition in range(settings.topic_partitions))
            if count > than:
                return count
            time.sleep(0.02)
    finally:
        log.close()
    raise AssertionError(f"the raw log stayed at {than} records")


def same(first: Log, second: Log, settings: Settings) -> None:
    """Assert that two logs hold the same records in the same order."""
    assert {key: len(values) for key, values in first.items()} == {key: len(values) for key, values in second.items()}
    assert first == second, "records differ although their counts are equal"
    codec = Codec(HttpRegistry(settings.registry_url))
    for (topic, _), values in first.items():
        frame = codec.decode(topic, values).frame
        assert frame["seq"].to_list() == list(range(len(values)))


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    return recording(tmp_path / "tape.csv", 60_000)


def test_an_edge_killed_three_times_leaves_the_log_of_an_undisturbed_one(namespace: NamespaceFactory, tape: Path) -> None:
    undisturbed, killed = namespace(), namespace()
    assert finish(edge(undisturbed, "--file", str(tape), "--speed", "0"))[0] == 0
    count = 0
    for kill in range(3):
        # Slow enough that the kill comes in the middle of the file.
        process = edge(killed, "--file", str(tape), "--speed", "60")
        count = wait_for_more(killed, count + 500 * kill)
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
    code, text = finish(edge(killed, "--file", str(tape), "--speed", "0"))
    assert code == 0, text
    same(raw_log(killed), raw_log(undisturbed), undisturbed)


def test_a_finished_file_read_again_is_a_no_op_that_says_so(namespace: NamespaceFactory, tmp_path: Path) -> None:
    settings = namespace()
    path = recording(tmp_path / "short.csv", 500)
    assert finish(edge(settings, "--file", str(path), "--speed", "0"))[0] == 0
    before = raw_log(settings)
    code, text = finish(edge(settings, "--file", str(path), "--speed", "0"))
    assert code == 0
    assert "nothing to do" in text
    assert raw_log(settings) == before
    states = [row["state"] for row in read_all(settings).values() if row["kind"] == "source"]
    assert states == ["finished"]


def test_two_edges_with_split_partitions_write_what_one_does(namespace: NamespaceFactory, tmp_path: Path) -> None:
    path = recording(tmp_path / "short.csv", 5000)
    one, split = namespace(), namespace()
    words = ("--file", str(path), "--speed", "0")
    processes = [edge(one, *words), edge(split, *words, "--partitions", "0,2"), edge(split, *words, "--partitions", "1,3")]
    for process in processes:
        code, text = finish(process)
        assert code == 0, text
    same(raw_log(split), raw_log(one), one)


def test_a_second_edge_on_the_same_partitions_is_kept_out(namespace: NamespaceFactory, tmp_path: Path) -> None:
    settings = namespace()
    path = recording(tmp_path / "short.csv", 5000)
    first = edge(settings, "--file", str(path), "--speed", "1")
    wait_for_more(settings, 0)
    code, text = finish(edge(settings, "--file", str(path), "--partitions", "3"))
    assert code == 2
    assert "partition 3" in text
    assert "fed by another edge" in text
    first.send_signal(signal.SIGTERM)
    code, text = finish(first)
    assert code == 0
    assert "stopped after" in text


def test_the_synthetic_market_goes_on_where_it_was_killed(namespace: NamespaceFactory) -> None:
    values: dict[str, Any] = {
        "synthetic_market_mode": "active",
        "synthetic_rate": 300.0,
        "synthetic_start": 1_718_371_800_000,
        "flow_speed": 4.0,
    }
    settings = namespace(**values)
    count = 0
    for _ in range(3):
        process = edge(settings)
        count = wait_for_more(settings, count + 1500)
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
    process = edge(settings)
    wait_for_more(settings, count + 3000)
    process.send_signal(signal.SIGINT)
    code, text = finish(process)
    assert code == 0, text
    undisturbed = namespace(**values | {"flow_speed": 0.0})
    process = edge(undisturbed)
    wait_for_more(undisturbed, 3 * sum(map(len, raw_log(settings).values())))
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 0
    expected = raw_log(undisturbed)
    for key, values_ in raw_log(settings).items():
        assert values_ == expected[key][: len(values_)], key


def test_another_market_in_a_namespace_is_refused(namespace: NamespaceFactory, tmp_path: Path) -> None:
    settings = namespace()
    path = recording(tmp_path / "short.csv", 200)
    assert finish(edge(settings, "--file", str(path), "--speed", "0"))[0] == 0
    other = recording(tmp_path / "other.csv", 300, seed=2)
    for words, named in [
        (("--file", str(other)), "a time line only goes on"),
        (("--options", "synthetic", "--equities", "synthetic"), "the options feed is 'files' there and 'synthetic' here"),
        (("--file", str(path), "--equities", "synthetic"), "never set against an invented market"),
    ]:
        code, text = finish(edge(settings, *words))
        assert code == 2, text
        assert named in text


def test_bad_lines_become_dead_letters_and_the_file_goes_on(namespace: NamespaceFactory, tmp_path: Path) -> None:
    settings = namespace()
    path = recording(tmp_path / "short.csv", 300)
    lines = path.read_text().splitlines()
    lines[10] = "garbage"
    lines[20] = lines[20].replace("SPY", "").replace("2024-06-21", "never")
    path.write_text("\n".join(lines) + "\n" + lines[30][:50])
    code, text = finish(edge(settings, "--file", str(path), "--speed", "0"))
    assert code == 0, text
    assert "3 refused" in text
    letters = [value for values in raw_log(settings, (topics.DEAD_LETTERS,)).values() for value in values]
    frame = Codec(HttpRegistry(settings.registry_url)).decode(topics.DEAD_LETTERS, letters).frame.sort("row")
    assert frame["reason"].to_list() == ["bad_line", "bad_instrument", "cut"]
    assert frame["raw"].to_list() == [b"garbage\n", lines[20].encode(), lines[30][:50].encode()]
    prints = sum(len(values) for (topic, _), values in raw_log(settings).items() if topic == topics.OPTIONS_NBBO)
    assert prints == 298


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--file", "."), "is a directory"),
        (("--file", "none.csv"), "does not exist"),
        (("--options", "telepathy"), "invalid choice: 'telepathy'"),
        (("--options", "none", "--equities", "none"), "at least one feed"),
        (("--options", "files"), "OPTIONS_FILES was empty"),
        (("--partitions", "0-9"), "allowed: numbers from 0 to 3"),
        (("--speed", "-1"), "allowed: a number >= 0"),
    ],
)
def test_what_cannot_be_fed_is_a_clear_error(namespace: NamespaceFactory, words: tuple[str, ...], named: str) -> None:
    code, text = finish(
        edge(namespace(), "--equities", "none", *words) if words[0] == "--options" and len(words) == 2 else edge(namespace(), *words)
    )
    assert code == 2
    assert named in text
    assert "Traceback" not in text


def test_a_registry_that_is_down_is_waited_for_and_needed_only_at_the_start(
    namespace: NamespaceFactory, registry: Running, tmp_path: Path
) -> None:
    settings = namespace()
    path = recording(tmp_path / "short.csv", 3000)
    registry.kill()
    process = edge(settings, "--file", str(path), "--speed", "2")
    assert process.stderr is not None
    assert any("waiting for the schema registry" in line for line in process.stderr)
    registry.start()
    wait_for_more(settings, 0)
    registry.kill()
    code, text = finish(process)
    registry.start()
    assert code == 1 or "read to the end" in text, text
    code, text = finish(edge(settings, "--file", str(path), "--speed", "0"))
    assert code == 0, text
    assert sum(len(values) for (topic, _), values in raw_log(settings).items() if topic == topics.OPTIONS_NBBO) == 3000
