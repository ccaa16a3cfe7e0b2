"""Downloads against a source in memory that breaks in every way a network does."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from flowapp.embedded import pins
from flowapp.embedded.download import ATTEMPTS, Downloader
from flowapp.embedded.pins import Artifact, Component
from flowapp.embedded.progress import LineProgress, for_stream
from flowapp.errors import DownloadError

UNREACHABLE = ConnectionError("network is unreachable")
ONE, TWO = b"one" * 50_000, b"two" * 70_000


def pin(name: str, content: bytes, ending: str = "") -> Artifact:
    return Artifact(f"org.test:{name}:1.0{ending}", len(content), hashlib.sha1(content).hexdigest())


class MemorySource:
    """Serves bytes by artifact name; `cut` ends the first answers early, `resumes` False ignores offsets."""

    def __init__(self, contents: dict[str, bytes], cut: int = 0, resumes: bool = True, error: Exception | None = None) -> None:
        self.contents, self.cut, self.resumes, self.error = contents, cut, resumes, error
        self.asked: list[tuple[str, int]] = []

    def read(self, artifact: Artifact, offset: int) -> tuple[int, Iterator[bytes]]:
        name = artifact.parts[1]
        self.asked.append((name, offset))
        if self.error is not None:
            raise self.error
        start = offset if self.resumes else 0
        content = self.contents[name][start:]
        if self.cut:
            self.cut -= 1
            return start, self._broken(content)
        return start, iter([content[:1000], content[1000:]])

    def _broken(self, content: bytes) -> Iterator[bytes]:
        yield content[: len(content) // 2]
        raise ConnectionResetError("reset by peer")


COMPONENT = Component("thing", "1.0", (pin("a", ONE), pin("b", TWO)))
CONTENTS = {"a": ONE, "b": TWO}


def make(home: Path, source: MemorySource, pauses: list[float] | None = None) -> Downloader:
    return Downloader(home, LineProgress(io.StringIO()), source, (pauses if pauses is not None else []).append)


def test_a_component_is_fetched_once_and_needs_no_network_afterwards(tmp_path: Path) -> None:
    source = MemorySource(CONTENTS)
    folder = make(tmp_path, source).ensure(COMPONENT)
    assert folder == tmp_path / "components" / "thing-1.0"
    assert (folder / "a-1.0.jar").read_bytes() == ONE
    assert (folder / "b-1.0.jar").read_bytes() == TWO
    offline = MemorySource({}, error=UNREACHABLE)
    assert make(tmp_path, offline).ensure(COMPONENT) == folder
    assert offline.asked == []
    assert not (tmp_path / "components" / ".partial" / "thing-1.0").exists()


def test_a_broken_transfer_is_resumed_where_it_broke(tmp_path: Path) -> None:
    pauses: list[float] = []
    source = MemorySource(CONTENTS, cut=2)
    folder = make(tmp_path, source, pauses).ensure(COMPONENT)
    assert source.asked == [("a", 0), ("a", 75_000), ("a", 112_500), ("b", 0)]
    assert pauses == [1.0, 2.0]
    assert (folder / "a-1.0.jar").read_bytes() == ONE


def test_a_source_that_cannot_resume_is_read_from_its_start(tmp_path: Path) -> None:
    source = MemorySource(CONTENTS, cut=1, resumes=False)
    folder = make(tmp_path, source).ensure(COMPONENT)
    assert (folder / "a-1.0.jar").read_bytes() == ONE


def test_two_files_left_half_by_a_killed_process_are_completed(tmp_path: Path) -> None:
    partial = tmp_path / "components" / ".partial" / "thing-1.0"
    partial.mkdir(parents=True)
    (partial / "a-1.0.jar.part").write_bytes(ONE[:100])
    (partial / "b-1.0.jar.part").write_bytes(TWO[:200])
    source = MemorySource(CONTENTS)
    folder = make(tmp_path, source).ensure(COMPONENT)
    assert source.asked == [("a", 100), ("b", 200)]
    assert [(folder / f"{name}-1.0.jar").read_bytes() for name in "ab"] == [ONE, TWO]


def test_a_half_file_with_wrong_bytes_is_thrown_away_and_fetched_whole(tmp_path: Path) -> None:
    partial = tmp_path / "components" / ".partial" / "thing-1.0"
    partial.mkdir(parents=True)
    (partial / "a-1.0.jar.part").write_bytes(b"x" * 100)
    source = MemorySource(CONTENTS)
    folder = make(tmp_path, source).ensure(COMPONENT)
    assert source.asked == [("a", 100), ("a", 0), ("b", 0)]
    assert (folder / "a-1.0.jar").read_bytes() == ONE


def test_bytes_that_are_not_the_pinned_ones_are_never_used(tmp_path: Path) -> None:
    source = MemorySource({"a": ONE[:-1] + b"!", "b": TWO})
    with pytest.raises(DownloadError, match=r"org\.test:a:1\.0 .*sha1 was"):
        make(tmp_path, source).ensure(COMPONENT)
    assert len(source.asked) == ATTEMPTS
    assert not (tmp_path / "components" / "thing-1.0").exists()


def test_without_a_network_the_error_names_what_is_missing_and_the_way_without(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        make(tmp_path, MemorySource({}, error=UNREACHABLE)).ensure(COMPONENT)
    text = str(caught.value)
    for word in ("thing 1.0", "org.test:a:1.0", "unreachable", str(tmp_path), "KAFKA_BOOTSTRAP_SERVERS=", "SCHEMA_REGISTRY_URL="):
        assert word in text


def test_an_error_of_the_http_library_is_shortened_to_what_went_wrong(tmp_path: Path) -> None:
    refused = requests.ConnectionError(
        "Pool(host='h'): Max retries exceeded (Caused by ProxyError('x', Error(\"y: [Errno 111] Connection refused\")))"
    )
    answer = requests.Response()
    answer.status_code = 404
    missing = requests.HTTPError("404 for url: http://h", response=answer)
    for error, words in ((refused, "attempts: [Errno 111] Connection refused. It"), (missing, "attempts: the repository answered 404. It")):
        source = MemorySource({}, error=error)
        with pytest.raises(DownloadError) as caught:
            make(tmp_path, source).ensure(COMPONENT)
        assert words in str(caught.value)


def test_a_cached_file_that_shrank_is_fetched_again_and_the_others_are_kept(tmp_path: Path) -> None:
    folder = make(tmp_path, MemorySource(CONTENTS)).ensure(COMPONENT)
    (folder / "b-1.0.jar").write_bytes(b"short")
    source = MemorySource(CONTENTS)
    make(tmp_path, source).ensure(COMPONENT)
    assert source.asked == [("b", 0)]
    assert (folder / "b-1.0.jar").read_bytes() == TWO


def test_a_changed_file_of_the_right_size_is_found_by_the_full_check(tmp_path: Path) -> None:
    downloader = make(tmp_path, MemorySource(CONTENTS))
    folder = downloader.ensure(COMPONENT)
    assert downloader.repair(COMPONENT) == []
    (folder / "a-1.0.jar").write_bytes(b"X" + ONE[1:])
    assert downloader.damaged(COMPONENT) == []
    assert downloader.repair(COMPONENT) == ["a-1.0.jar"]
    assert (downloader.ensure(COMPONENT) / "a-1.0.jar").read_bytes() == ONE


def test_another_version_of_the_pins_is_another_component(tmp_path: Path) -> None:
    make(tmp_path, MemorySource(CONTENTS)).ensure(COMPONENT)
    changed = Component("thing", "1.0", (pin("a", TWO), pin("b", TWO)))
    folder = make(tmp_path, MemorySource({"a": TWO, "b": TWO})).ensure(changed)
    assert (folder / "a-1.0.jar").read_bytes() == TWO


def test_an_archive_is_unpacked_and_checked_file_by_file(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        member = tarfile.TarInfo("lib/x.jar")
        member.size = len(ONE)
        tar.addfile(member, io.BytesIO(ONE))
    content = packed.getvalue()
    component = Component("archive", "2", (pin("c", content, ":all:tar.gz"),), unpack=True)
    downloader = make(tmp_path, MemorySource({"c": content}))
    folder = downloader.ensure(component)
    assert (folder / "lib" / "x.jar").read_bytes() == ONE
    (folder / "lib" / "x.jar").unlink()
    assert downloader.damaged(component) == ["lib/x.jar"]
    assert (downloader.ensure(component) / "lib" / "x.jar").read_bytes() == ONE


def test_of_two_that_start_together_one_downloads_and_the_other_waits(tmp_path: Path) -> None:
    source = MemorySource(CONTENTS)
    threads = [threading.Thread(target=make(tmp_path, source).ensure, args=(COMPONENT,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(source.asked) == [("a", 0), ("b", 0)]


def test_progress_in_plain_lines_tells_title_and_tenths() -> None:
    out = io.StringIO()
    progress = LineProgress(out)
    progress.start("thing 1.0", 3 << 20)
    for _ in range(3):
        progress.advance(1 << 20)
    progress.finish(True)
    assert out.getvalue().splitlines() == [
        "downloading thing 1.0 (3 MB)",
        "  thing 1.0: 30 %",
        "  thing 1.0: 60 %",
        "  thing 1.0: 100 %",
        "  thing 1.0: ready",
    ]


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(for_stream(io.StringIO()), LineProgress)
    out = Terminal()
    bar = for_stream(out)
    bar.start("thing 1.0", 3 << 20)
    bar.advance(3 << 20)
    bar.note("a note")
    bar.finish(True)
    assert "thing 1.0" in out.getvalue()
    assert "a note" in out.getvalue()


@pytest.mark.parametrize("component", pins.ALL, ids=lambda component: component.name)
def test_every_pin_names_a_file_with_size_and_sha1(component: Component) -> None:
    names = [artifact.file_name for artifact in component.artifacts]
    assert len(set(names)) == len(names)
    for artifact in component.artifacts:
        assert artifact.size_bytes > 0
        assert len(artifact.sha1) == 40
        assert set(artifact.sha1) <= set("0123456789abcdef")


def test_the_brokers_files_are_of_one_version_and_it_can_log() -> None:
    versions = {parts[1]: parts[2] for parts in (artifact.parts for artifact in pins.KAFKA_ARTIFACTS)}
    assert {version for name, version in versions.items() if name.startswith("kafka")} == {pins.KAFKA_VERSION}
    assert versions["log4j-slf4j-impl"] == versions["log4j-core"] == versions["log4j-api"]
