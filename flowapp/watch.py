"""`flow watch`: packets in the terminal, one line each, as they come."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO
from zoneinfo import ZoneInfo

import polars as pl
from confluent_kafka import Consumer, KafkaException, TopicPartition

from flowapp import topics
from flowapp.errors import BrokerUnavailable, NamespaceError
from flowapp.records.codec import Codec
from flowapp.records.registry import HttpRegistry
from flowapp.settings import Settings

EXCHANGE_ZONE = ZoneInfo("America/New_York")
BACKLOG_PACKETS = 20
POLL_SECONDS = 0.2
POLL_RECORDS = 500
QUIET_SECONDS, QUIET_GROWTH = 8.0, 3.0
SAMPLE_PRINTS = 20_000
REMEMBERED_IDS = 100_000
METADATA_SECONDS = 10.0


def add_parser(commands: Any) -> None:
    """Declare `flow watch`."""
    parser = commands.add_parser("watch", help="show flow packets as they come", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of an aligned line")
    parser.add_argument("--count", type=_positive, metavar="N", help="end after N packets")
    parser.set_defaults(run=run)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"was {text!r}; allowed: a whole number >= 1")
    return number


def run(args: argparse.Namespace) -> int:
    """Show the last packets that exist, then follow."""
    settings = Settings.load()
    watch = Watch(settings, line=json_line if args.json else text_line)
    try:
        watch.follow(args.count)
    except KeyboardInterrupt:
        return 0
    return 0


def json_line(packet: dict[str, Any]) -> str:
    """Render a packet as one line of JSON, every field of the record."""
    return json.dumps(packet, ensure_ascii=False, separators=(",", ":"))


def clock(ms: int) -> str:
    """Render ms UTC as exchange time."""
    from datetime import datetime

    moment = datetime.fromtimestamp(ms / 1000, EXCHANGE_ZONE)
    return f"{moment:%m-%d %H:%M:%S}.{ms % 1000:03d}"


def text_line(packet: dict[str, Any]) -> str:
    """Render a packet as one aligned line: time, contract, count, size, premium, side mix, age of quote."""
    buys = packet["nbbo_aa_count"] + packet["nbbo_a_count"]
    sells = packet["nbbo_b_count"] + packet["nbbo_bb_count"]
    unknown = packet["member_count"] - buys - sells - packet["nbbo_mid_count"]
    age = packet["nbbo_age_ms"]
    quote = "no quote" if age is None else f"quote {age:,} ms"
    state = " retracted" if packet["retracted"] else f" r{packet['revision']}" if packet["revision"] else ""
    return (
        f"{clock(packet['end_ts'])}  {packet['option_contract_id']:<28} {packet['count']:>5,} prints {packet['total_size']:>8,} lots "
        f"${packet['total_notional']:>13,.0f}  "
        f"ask {buys:>3} mid {packet['nbbo_mid_count']:>3} bid {sells:>3} ? {unknown:>3}  {quote}{state}"
    )


@dataclass
class Watch:
    """A reader of one namespace's packets; keeps no group and commits nothing."""

    settings: Settings
    line: Callable[[dict[str, Any]], str] = text_line
    out: TextIO = field(default_factory=lambda: sys.stdout)
    notes: TextIO = field(default_factory=lambda: sys.stderr)

    def __post_init__(self) -> None:
        self.codec = Codec(HttpRegistry(self.settings.registry_url))
        self.newest: OrderedDict[str, int] = OrderedDict()
        self.shown = 0

    def follow(self, count: int | None = None) -> None:
        """Print the last packets that exist, then each new one; end after `count`."""
        consumer = self._consumer()
        try:
            backlog = self._assign(consumer, topics.FLOW_PACKETS, BACKLOG_PACKETS)
            self.notes.write(f"{provenance(self.settings)}: packets of namespace {self.settings.namespace}\n")
            self._show(self._backlog(consumer, backlog)[-BACKLOG_PACKETS:], count)
            last, patience = time.monotonic(), QUIET_SECONDS
            while count is None or self.shown < count:
                packets = self._poll(consumer, topics.FLOW_PACKETS)
                if packets:
                    last, patience = time.monotonic(), QUIET_SECONDS
                    self._show(packets, count)
                elif time.monotonic() - last >= patience:
                    last, patience = time.monotonic(), patience * QUIET_GROWTH
                    self._explain_silence()
        finally:
            consumer.close()

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap,
                "group.id": f"{topics.app_id(self.settings.namespace)}.watch",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )

    def _assign(self, consumer: Consumer, topic: str, tail: int) -> dict[int, int]:
        """Assign every partition of a topic at most `tail` records before its end; return the ends to read up to."""
        name = topics.full_name(self.settings.namespace, topic)
        try:
            meta = consumer.list_topics(name, timeout=METADATA_SECONDS).topics[name]
        except KafkaException as error:
            raise BrokerUnavailable(
                f"no broker answers at {self.settings.bootstrap}; start one with `flow up`, or set KAFKA_BOOTSTRAP_SERVERS"
            ) from error
        if meta.error is not None or not meta.partitions:
            raise NamespaceError(
                f"namespace {self.settings.namespace} has no topic {name}; `flow init` creates it, FLOW_NAMESPACE chooses another"
            )
        places, ends = [], {}
        for partition in meta.partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=METADATA_SECONDS)
            places.append(TopicPartition(name, partition, max(low, high - tail)))
            if high > low:
                ends[partition] = high
        consumer.assign(places)
        return ends

    def _backlog(self, consumer: Consumer, ends: dict[int, int]) -> list[dict[str, Any]]:
        """Read every partition up to its end and return the packets by time."""
        waiting, packets = dict(ends), []
        while waiting:
            for message in consumer.consume(POLL_RECORDS, POLL_SECONDS):
                if message.error() is not None:
                    continue
                packets += self._decode(topics.FLOW_PACKETS, [message.value()])
                if message.offset() + 1 >= waiting.get(message.partition(), 0):
                    waiting.pop(message.partition(), None)
        return sorted(packets, key=lambda packet: (packet["end_ts"], packet["id"]))

    def _poll(self, consumer: Consumer, topic: str) -> list[dict[str, Any]]:
        messages = [m for m in consumer.consume(POLL_RECORDS, POLL_SECONDS) if m.error() is None]
        return self._decode(topic, [message.value() for message in messages]) if messages else []

    def _decode(self, topic: str, values: list[bytes | None]) -> list[dict[str, Any]]:
        return self.codec.decode(topic, values).frame.drop("_row").to_dicts()

    def _show(self, packets: list[dict[str, Any]], count: int | None) -> None:
        for packet in self._fresh(packets):
            if count is not None and self.shown >= count:
                return
            self.out.write(self.line(packet) + "\n")
            self.shown += 1
        self.out.flush()

    def _fresh(self, packets: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Skip what a redone checkpoint sends again: per id only a higher revision is new."""
        for packet in packets:
            known = self.newest.get(packet["id"])
            if known is not None and packet["revision"] <= known:
                continue
            self.newest[packet["id"]] = packet["revision"]
            self.newest.move_to_end(packet["id"])
            if len(self.newest) > REMEMBERED_IDS:
                self.newest.popitem(last=False)
            yield packet

    def _explain_silence(self) -> None:
        """Say why nothing comes: no prints, or which reasons hold the newest ones back."""
        consumer = self._consumer()
        try:
            ends = self._assign(consumer, topics.OPTIONS_PRINTS, SAMPLE_PRINTS // self.settings.topic_partitions)
            frames, waiting = [], dict(ends)
            while waiting:
                messages = [m for m in consumer.consume(POLL_RECORDS, POLL_SECONDS) if m.error() is None]
                frames.append(self.codec.decode(topics.OPTIONS_PRINTS, [m.value() for m in messages]).frame)
                for message in messages:
                    if message.offset() + 1 >= waiting.get(message.partition(), 0):
                        waiting.pop(message.partition(), None)
            self.notes.write(silence_text(pl.concat(frames) if frames else None) + "\n")
        finally:
            consumer.close()


def silence_text(prints: pl.DataFrame | None) -> str:
    """Explain from the newest prints why no packet comes: counts by reason, and how to see all."""
    if prints is not None:
        prints = prints.filter(pl.col("trace_id").is_not_null())
    if prints is None or prints.is_empty():
        return "no prints yet: is an edge running? `flow status` tells"
    passed = int(prints["signal_pass"].fill_null(False).sum())
    reasons = Counter(reason for reason in prints.filter(~pl.col("signal_pass").fill_null(False))["signal_reasons"].explode().drop_nulls())
    counts = ", ".join(f"{reason} {number:,}" for reason, number in reasons.most_common())
    lead = f"of the newest {prints.height:,} prints {passed:,} passed the signal filter"
    if passed:
        return f"{lead}; their packets come when later ticks decide them, or no worker runs (`flow status` tells)"
    return f"{lead}: {counts}; OPTIONS_SIGNAL_MODE=all shows every print"


def provenance(settings: Settings) -> str:
    """Say in a word where the namespace's prints come from."""
    if settings.namespace.startswith("tape_"):
        return "RECORDED"
    return "SYNTHETIC" if settings.namespace == "demo" or settings.options_ingest_adapter == "synthetic" else "LIVE"
