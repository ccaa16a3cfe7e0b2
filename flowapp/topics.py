"""Topics of a namespace: names, kinds, keys, partitions and how they are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OPTIONS_PRINTS = "options.prints"
OPTIONS_NBBO = "options.nbbo"
EQUITIES_PRINTS = "equities.prints"
EQUITIES_QUOTES = "equities.quotes"
OPTIONS_SIGNAL = "options.prints.signal"
FLOW_PACKETS = "flow.packets"
CLASSIFIER_HITS = "flow.classifier_hits"
ALERTS = "flow.alerts"
INTERVALS = "flow.intervals"
TICKER_MINUTES = "flow.ticker_minutes"
DARK_INFERRED = "dark.inferred"
CANDLES = "equities.candles"
DEAD_LETTERS = "ops.dead_letters"
RUNS = "ops.runs"
USER_STATE = "ops.user_state"

AGENT_INPUTS = {"options": OPTIONS_PRINTS, "equities": EQUITIES_PRINTS}


@dataclass(frozen=True)
class Topic:
    """A topic without its namespace: the records it carries, and whether it is compacted."""

    name: str
    records: tuple[str, ...]
    compacted: bool = False


ALL: tuple[Topic, ...] = (
    Topic(OPTIONS_PRINTS, ("OptionPrint", "Tick")),
    Topic(OPTIONS_NBBO, ("OptionNbbo",)),
    Topic(EQUITIES_PRINTS, ("EquityPrint", "Tick")),
    Topic(EQUITIES_QUOTES, ("EquityQuote",)),
    Topic(OPTIONS_SIGNAL, ("SignalPrint",)),
    Topic(FLOW_PACKETS, ("FlowPacket",)),
    Topic(CLASSIFIER_HITS, ("ClassifierHit",)),
    Topic(ALERTS, ("Alert",)),
    Topic(INTERVALS, ("FlowInterval",)),
    Topic(TICKER_MINUTES, ("TickerMinute",)),
    Topic(DARK_INFERRED, ("InferredDark",)),
    Topic(CANDLES, ("Candle",)),
    Topic(DEAD_LETTERS, ("DeadLetter",)),
    Topic(RUNS, ("Run",), compacted=True),
    Topic(USER_STATE, ("UserState",), compacted=True),
)
BY_NAME: Mapping[str, Topic] = {topic.name: topic for topic in ALL}


def full_name(namespace: str, topic: str) -> str:
    """Return the Kafka name of a topic in a namespace."""
    return f"{namespace}.{topic}"


def app_id(namespace: str) -> str:
    """Return the Faust app id, which is also the consumer group."""
    return f"flowapp.{namespace}"


def table_name(agent: str) -> str:
    """Return the name of an agent's one table."""
    return f"{agent}-state"


def changelog_name(namespace: str, agent: str) -> str:
    """Return the changelog topic of an agent's table, as Faust names it."""
    return f"{app_id(namespace)}-{table_name(agent)}-changelog"


def murmur2(data: bytes) -> int:
    """Hash as Kafka's default partitioner does (org.apache.kafka.common.utils.Utils.murmur2), unsigned."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[whole:]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def partition_of(underlying: str, partitions: int, placement: Iterable[tuple[str, int]] = ()) -> int:
    """Return the partition of an underlying: its placement, else Kafka's own hash of its upper-cased name."""
    key = underlying.upper()
    for name, partition in placement:
        if name == key:
            return partition
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
