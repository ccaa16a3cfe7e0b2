"""Components of the embedded stack: fetched once, verified, cached in FLOW_HOME/components, offline afterwards.

A file arrives in `.partial/<component>/<name>.part`, is resumed there, and gets its name only when size and sha1
are those of `pins`; the component gets its folder by one rename when all of its files are there.
"""

from __future__ import annotations

import os
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from flowapp.embedded import manifest
from flowapp.embedded.locks import FileLock
from flowapp.embedded.pins import KAFKA, REGISTRY, Artifact, Component
from flowapp.embedded.progress import Progress, for_stream
from flowapp.errors import DownloadError, FlowError
from flowapp.settings import Settings

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 1.0
LOCK_WAIT_SECONDS = 1800.0
HTTP_TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 16


class Source(Protocol):
    """Where files come from."""

    def read(self, artifact: Artifact, offset: int) -> tuple[int, Iterator[bytes]]:
        """Return the offset really started at (0 if it cannot resume) and the bytes from there.

        Raises:
            OSError: the source does not answer; it may later.
        """


class MavenSource:
    """The repositories jgo knows."""

    def read(self, artifact: Artifact, offset: int) -> tuple[int, Iterator[bytes]]:
        import requests

        try:
            from jgo.maven import MavenContext
        except ImportError as error:
            raise DownloadError("jgo is not installed; run: pip install 'flowapp[embedded]'") from error
        group, name, version, classifier, packaging = artifact.parts
        context = MavenContext(repo_cache=Path(os.devnull))
        file = context.project(group, name).at_version(version).artifact(classifier=classifier, packaging=packaging)
        base = next(iter(context.remote_repos.values()))
        url = f"{base}/{file.component.path_prefix.as_posix()}/{file.filename}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = requests.get(url, stream=True, headers=headers, timeout=HTTP_TIMEOUT_SECONDS)
        response.raise_for_status()
        return (offset if response.status_code == 206 else 0), response.iter_content(CHUNK_BYTES)


def components_folder(home: Path) -> Path:
    """Return the folder of all components."""
    return home / "components"


class Downloader:
    """Fetches components into one FLOW_HOME."""

    def __init__(self, home: Path, progress: Progress, source: Source | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self.root = components_folder(home)
        self.progress = progress
        self.source = source or MavenSource()
        self.sleep = sleep

    def ensure(self, component: Component) -> Path:
        """Return the component's folder, fetching what is missing.

        Raises:
            DownloadError: a file could not be fetched; says which, and how to do without.
        """
        folder = self.root / component.folder_name
        if self.damaged(component) == []:
            return folder
        with FileLock(self.root / ".lock") as lock:
            if not lock.acquire():
                self.progress.note(f"another process (pid {lock.holder()}) is downloading into {self.root}; waiting for it")
                if not lock.acquire(LOCK_WAIT_SECONDS):
                    raise DownloadError(f"{self.root / '.lock'} was held by process {lock.holder()} for {LOCK_WAIT_SECONDS:.0f} s; end it")
            if self.damaged(component) != []:
                self._build(component, folder)
        return folder

    def damaged(self, component: Component, contents: bool = False) -> list[str] | None:
        """Return the cached files that are not what they should be; None when the component is not there."""
        return manifest.damaged(self.root / component.folder_name, _pins(component), contents)

    def repair(self, component: Component) -> list[str]:
        """Hash every cached file, discard a component with a wrong one; return the wrong ones."""
        wrong = self.damaged(component, contents=True)
        if wrong:
            shutil.rmtree(self.root / component.folder_name)
        return wrong or []

    def _build(self, component: Component, folder: Path) -> None:
        partial = self.root / ".partial" / component.folder_name
        partial.mkdir(parents=True, exist_ok=True)
        self._salvage(component, folder, partial)
        self.progress.start(f"{component.name} {component.version}, {len(component.artifacts)} file(s)", component.size_bytes)
        complete = False
        try:
            for artifact in component.artifacts:
                self._fetch(component, artifact, partial)
            complete = True
        finally:
            self.progress.finish(complete)
        content = _unpack(partial / component.artifacts[0].file_name, partial / "content") if component.unpack else partial
        manifest.write(content, _pins(component))
        shutil.rmtree(folder, ignore_errors=True)
        content.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)

    def _salvage(self, component: Component, folder: Path, partial: Path) -> None:
        """Keep what a damaged folder still holds; `_fetch` judges each file."""
        if component.unpack or not folder.is_dir():
            return
        for artifact in component.artifacts:
            kept = folder / artifact.file_name
            if kept.is_file() and not (partial / artifact.file_name).exists():
                kept.rename(partial / artifact.file_name)

    def _fetch(self, component: Component, artifact: Artifact, partial: Path) -> None:
        target = partial / artifact.file_name
        if target.exists() and _is(artifact, target):
            self.progress.advance(artifact.size_bytes)
            return
        part = partial / f"{artifact.file_name}.part"
        reason: Exception | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                self.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            try:
                self._transfer(artifact, part)
            except OSError as error:  # requests' errors are OSErrors
                reason = error
                continue
            if _is(artifact, part):
                part.rename(target)
                return
            reason = DownloadError(f"{part.stat().st_size} bytes arrived whose sha1 was {manifest.sha1_of(part)}")
            self.progress.advance(-part.stat().st_size)
            part.unlink()
        raise DownloadError(_missing_text(component, artifact, self.root, reason)) from reason

    def _transfer(self, artifact: Artifact, part: Path) -> None:
        """Append to `part` what it lacks; start again where the source cannot resume."""
        have = part.stat().st_size if part.exists() else 0
        if have >= artifact.size_bytes:
            part.unlink()
            have = 0
        start, chunks = self.source.read(artifact, have)
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            self.progress.advance(start)
            done = start
            try:
                for chunk in chunks:
                    file.write(chunk)
                    done += len(chunk)
                    self.progress.advance(len(chunk))
                if done < artifact.size_bytes:
                    raise OSError(f"the connection ended after {done} of {artifact.size_bytes} bytes")
            except OSError:
                self.progress.advance(-done)
                raise


def _pins(component: Component) -> list[str]:
    return [f"{artifact.coordinate} {artifact.size_bytes} {artifact.sha1}" for artifact in component.artifacts]


def _is(artifact: Artifact, path: Path) -> bool:
    return path.stat().st_size == artifact.size_bytes and manifest.sha1_of(path) == artifact.sha1


def _unpack(archive: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(folder, filter="data")
        else:  # Python 3.11.0 to 3.11.3; the archive's sha1 is pinned
            tar.extractall(folder)
    return folder


def _missing_text(component: Component, artifact: Artifact, root: Path, reason: Exception | None) -> str:
    return (
        f"{component.name} {component.version} is not in {root} and {artifact.coordinate} ({artifact.size_bytes} bytes) could not "
        f"be downloaded after {ATTEMPTS} attempts: {_short(reason)}. It is needed once; what has arrived is kept. "
        f"Without a network, copy {root} from another machine, or use an existing broker and registry: "
        f"set KAFKA_BOOTSTRAP_SERVERS=host:port and SCHEMA_REGISTRY_URL=http://host:port"
    )


def _short(reason: Exception | None) -> str:
    """Return what went wrong without the layers of the HTTP library around it."""
    response = getattr(reason, "response", None)
    if response is not None:
        return f"the repository answered {response.status_code}"
    return str(reason).rsplit(": ", 1)[-1].strip("'\")( ") or type(reason).__name__


def needed(settings: Settings) -> list[Component]:
    """Return the components whose part is not external."""
    return [KAFKA] * settings.embedded_broker + [REGISTRY] * settings.embedded_registry


def main() -> int:
    """Fetch what the settings' stack needs."""
    try:
        settings = Settings.load()
        downloader = Downloader(settings.home, for_stream())
        for component in needed(settings):
            downloader.ensure(component)
    except FlowError as error:
        print(f"flow: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
