"""The feeds that settings ask for, opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flowapp.edge.adapters.base import Adapter
from flowapp.edge.adapters.files import open_file
from flowapp.edge.adapters.synthetic import SyntheticAdapter
from flowapp.edge.adapters.tape import EQUITIES, OPTIONS, RecordedFile
from flowapp.edge.conditions import VOCABULARIES
from flowapp.errors import SettingError, SourceError
from flowapp.settings import Settings

FILES, SYNTHETIC, NONE = "files", "synthetic", "none"


@dataclass(frozen=True)
class Side:
    """One kind of feed: its name and vocabulary, and whether its order tells which of a quote and a trade of one time came first."""

    name: str
    vocabulary: str
    ordered: bool


@dataclass(frozen=True)
class Feeds:
    """What an edge reads.

    Args:
        adapters: in the order in which events of equal time go.
        run: name of the run; a restartable source always has the same.
        one_feed: options and equities come from one adapter, with one order.
        speed: event time passed in a unit of wall time, 0 for no limit.
    """

    adapters: Sequence[Adapter]
    run: str
    options: Side | None
    equities: Side | None
    one_feed: bool = False
    live: bool = False
    speed: float = 0.0
    files: Sequence[RecordedFile] = ()

    @property
    def sources(self) -> list[str]:
        """What is read, as the run's record names it."""
        return [f"{file.digest} {file.source}" for file in self.files]


def side_of(adapters: Sequence[Adapter]) -> Side:
    """Return what the adapters of one kind have in common.

    Raises:
        SourceError: they are of several vendors.
    """
    names = {(adapter.feed, adapter.vocabulary) for adapter in adapters}
    if len(names) != 1:
        raise SourceError(f"files of several vendors were given for one feed: {', '.join(sorted(name for name, _ in names))}; give one's")
    name, vocabulary = names.pop()
    assert vocabulary in VOCABULARIES
    return Side(name, vocabulary, len(adapters) == 1 and getattr(adapters[0], "ordered", True))


def with_files(settings: Settings, names: Sequence[str], *, options: str | None, equities: str | None) -> Settings:
    """Return settings that read the files of `--file`; the other feed is off unless it is given.

    Raises:
        SourceError: a file cannot be read as prints or quotes.
    """
    kinds: dict[str, list[str]] = {OPTIONS: [], EQUITIES: []}
    for name in names:
        file = open_file(name)
        file.close()
        kinds[file.kind].append(name)
    chosen = {kind: FILES if files else asked or NONE for (kind, files), asked in zip(kinds.items(), (options, equities), strict=True)}
    return replace(
        settings, options_ingest_adapter=chosen[OPTIONS], equities_ingest_adapter=chosen[EQUITIES], options_files=tuple(kinds[OPTIONS]),
        equities_files=tuple(kinds[EQUITIES]),
    )  # fmt: skip


def sorted_by_kind(settings: Settings) -> Settings:
    """Put files where they belong when a stock's recording was named as the options feed and nothing else is asked for."""
    if settings.options_ingest_adapter != FILES or settings.equities_ingest_adapter != NONE or not settings.options_files:
        return settings
    return with_files(settings, settings.options_files, options=None, equities=None)


def open_feeds(settings: Settings, start_ts: int | None) -> Feeds:
    """Open the feeds.

    Args:
        start_ts: start of the synthetic market's clock, ms UTC.

    Raises:
        SettingError: no feed is on, or files are asked for and none named.
        SourceError: a file cannot be read, or is of the other kind.
    """
    asked = (settings.options_ingest_adapter, settings.equities_ingest_adapter)
    if asked == (NONE, NONE):
        raise SettingError("OPTIONS_INGEST_ADAPTER and EQUITIES_INGEST_ADAPTER were none; allowed: at least one feed")
    files = [*_files(settings, OPTIONS), *_files(settings, EQUITIES)]
    adapters: list[Adapter] = list(files)
    if SYNTHETIC in asked:
        assert start_ts is not None
        adapters.append(SyntheticAdapter(settings, start_ts))
    sides = [_side(kind, adapter, files, adapters) for kind, adapter in zip((OPTIONS, EQUITIES), asked, strict=True)]
    run = _digest(files) if files else f"{settings.synthetic_seed}-{_profiles(settings)}"
    return Feeds(adapters, run, sides[0], sides[1], one_feed=asked == (SYNTHETIC, SYNTHETIC), speed=settings.flow_speed, files=files)


def _files(settings: Settings, kind: str) -> list[RecordedFile]:
    variable, names, adapter = (
        ("OPTIONS_FILES", settings.options_files, settings.options_ingest_adapter)
        if kind == OPTIONS
        else ("EQUITIES_FILES", settings.equities_files, settings.equities_ingest_adapter)
    )
    if adapter != FILES:
        return []
    if not names:
        raise SettingError(f"{variable} was empty and {kind.upper()}_INGEST_ADAPTER was files; allowed: paths separated by commas")
    opened = [open_file(name) for name in names]
    for file in opened:
        if file.kind != kind:
            raise SourceError(f"{file.path} in {variable} holds {file.kind}; allowed: {kind}")
    return opened


def _side(kind: str, adapter: str, files: Sequence[RecordedFile], adapters: Sequence[Adapter]) -> Side | None:
    if adapter == NONE:
        return None
    if adapter == SYNTHETIC:
        return side_of([found for found in adapters if not isinstance(found, RecordedFile)])
    return side_of([file for file in files if file.kind == kind])


def _digest(files: Sequence[RecordedFile]) -> str:
    if len(files) == 1:
        return files[0].digest
    return hashlib.sha256(" ".join(file.digest for file in files).encode()).hexdigest()[:8]


def _profiles(settings: Settings) -> str:
    on = {
        settings.options_profile: settings.options_ingest_adapter == SYNTHETIC,
        settings.equities_profile: settings.equities_ingest_adapter == SYNTHETIC,
    }
    if settings.options_profile == settings.equities_profile:
        return settings.options_profile
    return "-".join(profile for profile, is_on in on.items() if is_on)
