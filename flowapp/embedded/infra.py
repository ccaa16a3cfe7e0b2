"""Broker and registry together, as tests and tools start them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowapp.embedded import pins, progress
from flowapp.embedded.download import Downloader
from flowapp.embedded.kafka import Broker
from flowapp.embedded.process import Child
from flowapp.embedded.registry import Registry
from flowapp.embedded.service import Service, start
from flowapp.logs import Record
from flowapp.settings import Settings

OnRecord = Callable[[Record], None]


def services(settings: Settings, reporter: progress.Progress | None = None) -> list[Service]:
    """Return the parts that are not external, their components fetched."""
    downloader = Downloader(settings.home, reporter or progress.for_stream())
    found: list[Service] = []
    if settings.embedded_broker:
        found.append(Broker(settings, downloader.ensure(pins.KAFKA)))
    if settings.embedded_registry:
        found.append(Registry(settings, downloader.ensure(pins.REGISTRY)))
    return found


@contextmanager
def running(settings: Settings, on_record: OnRecord | None = None) -> Iterator[dict[str, Child]]:
    """Run broker and registry for the length of a `with` block."""
    children: dict[str, Child] = {}
    try:
        for service in services(settings):
            children[service.name] = start(service, settings.home, on_record)
        yield children
    finally:
        for child in reversed(children.values()):
            child.stop()
