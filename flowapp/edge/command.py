"""`flow ingest`: run the edge, feeds to raw topics."""

from __future__ import annotations

import argparse
import logging
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowapp import logs
from flowapp.edge import ledger
from flowapp.edge.feeds import Feeds, open_feeds, sorted_by_kind, with_files
from flowapp.edge.ingest import Ingest, Ports
from flowapp.edge.pacing import WallClock
from flowapp.edge.progress import reporter
from flowapp.edge.rawlog import KafkaRawLog
from flowapp.edge.resume import PartitionLocks
from flowapp.engine.producer import KafkaProducer
from flowapp.errors import RegistryUnavailable, SettingError
from flowapp.records import schemas
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry
from flowapp.runs import KafkaRunLog, Pins
from flowapp.settings import EQUITIES_ADAPTERS, OPTIONS_ADAPTERS, Settings

REGISTRY_WAIT_SECONDS = 2.0
RAW_RECORDS = ("OptionPrint", "OptionNbbo", "EquityPrint", "EquityQuote", "Tick", "DeadLetter")

log = logging.getLogger("flowapp.edge")


def add_parser(subparsers: Any) -> None:
    """Add `ingest` to the commands of `flow`."""
    parser = subparsers.add_parser("ingest", help="run the edge: feeds to raw topics", description=__doc__)
    parser.add_argument("--file", metavar="PATH", help="recorded prints and quotes, several separated by commas; turns the other feed off")
    parser.add_argument("--speed", type=_speed, metavar="X", help="1 as recorded, 2 twice as fast, 0 as fast as possible")
    parser.add_argument("--partitions", metavar="0-3", help="write only these partitions; other edges write the others")
    parser.add_argument("--options", choices=OPTIONS_ADAPTERS, help="options feed, in place of OPTIONS_INGEST_ADAPTER")
    parser.add_argument("--equities", choices=EQUITIES_ADAPTERS, help="equities feed, in place of EQUITIES_INGEST_ADAPTER")
    parser.set_defaults(run=run)


def _speed(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"was {text!r}; allowed: a number >= 0")
    return value


def run(args: argparse.Namespace) -> int:
    """Feed the namespace until the feeds end or a signal comes."""
    logs.configure("edge")
    settings = effective_settings(args)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return ingest(settings, parse_partitions(args.partitions, settings.topic_partitions), stop)


def effective_settings(args: argparse.Namespace) -> Settings:
    """Return the settings with what the command line says."""
    settings = Settings.load(flow_speed=args.speed)
    if args.file:
        names = [name.strip() for name in args.file.split(",") if name.strip()]
        return with_files(settings, names, options=args.options, equities=args.equities)
    adapters = {"options_ingest_adapter": args.options, "equities_ingest_adapter": args.equities}
    return sorted_by_kind(replace(settings, **{name: value for name, value in adapters.items() if value is not None}))


def parse_partitions(text: str | None, count: int) -> list[int]:
    """Read `0-3` or `0,2,5-7`.

    Raises:
        SettingError: it is no list of partitions of this namespace.
    """
    if not text:
        return list(range(count))
    chosen: set[int] = set()
    for word in text.split(","):
        first, _, last = word.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit() or int(first) > int(last or first) or int(last or first) >= count:
            raise SettingError(
                f"--partitions was {text!r}; allowed: numbers from 0 to {count - 1} and ranges such as 0-3, separated by commas"
            )
        chosen |= set(range(int(first), int(last or first) + 1))
    return sorted(chosen)


def ingest(settings: Settings, partitions: Sequence[int], stop: threading.Event) -> int:
    """Run the edge over some partitions; returns the exit code."""
    run_log = KafkaRunLog(settings)
    codec = Codec(HttpRegistry(settings.registry_url))
    if not _registry_answers(codec, stop):
        return 0
    locks = PartitionLocks(settings.home / settings.namespace / "edge", settings.namespace, partitions)
    feeds: Feeds | None = None
    try:
        pins = Pins.check_or_write(settings, edge=True, log=run_log)
        feeds = open_feeds(settings, pins.start_ts)
        if ledger.is_finished(run_log.read_all(), settings, feeds, partitions):
            named = ", ".join(feeds.sources)
            log.info(f"nothing to do: {named} was read to its end before and is in namespace {settings.namespace}")
            return 0
        return _feed(settings, feeds, partitions, stop, run_log, codec)
    finally:
        for file in feeds.files if feeds else ():
            file.close()
        locks.release()


def _registry_answers(codec: Codec, stop: threading.Event) -> bool:
    """Wait for the registry until it knows every record that the edge writes; False when told to stop."""
    while True:
        try:
            for name in RAW_RECORDS:
                codec.encode(name, schemas.frame_schema(name).to_frame())
            return True
        except RegistryUnavailable as error:
            log.warning(f"waiting for the schema registry: {error}")
            if stop.wait(REGISTRY_WAIT_SECONDS):
                return False


def _feed(settings: Settings, feeds: Feeds, partitions: Sequence[int], stop: threading.Event, run_log: KafkaRunLog, codec: Codec) -> int:
    raw_log = KafkaRawLog(settings)
    producer = KafkaProducer(settings.bootstrap, client_id="flow-edge")
    began = time.monotonic()
    name = ", ".join(file.source for file in feeds.files) or feeds.run
    try:
        with reporter(name, has_end=bool(feeds.files)) as show:
            edge = Ingest(settings, feeds, Ports(producer, codec, raw_log, WallClock()), partitions, stop.is_set, show)
            edge.begin()
            run_log.write([ledger.row(settings, feeds, partitions, ledger.RUNNING)])
            ended = edge.run()
        if ended:
            run_log.write([ledger.row(settings, feeds, partitions, ledger.FINISHED, edge.counts.events)])
        log.info(
            f"{'read to the end' if ended else 'stopped'} after {time.monotonic() - began:.1f} s",
            extra={"context": {"events": edge.counts.events, "refused": edge.counts.refused, "namespace": settings.namespace}},
        )
    finally:
        producer.close()
        raw_log.close()
    return 0
