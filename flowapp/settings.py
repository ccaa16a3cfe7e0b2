"""Settings: one frozen object, read from the environment, else from `.env`.

Every variable is declared once, below, with its default, its type and its meaning; the variable table of the
documentation (`flow settings`) and the error texts come from the same declaration.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from flowapp.errors import SettingError

TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off"})
NAMESPACE_PATTERN = re.compile(r"[a-z0-9][a-z0-9_]{0,62}")
OPTIONS_ADAPTERS = ("synthetic", "files", "none")
EQUITIES_ADAPTERS = ("synthetic", "files", "none")
PROFILES = ("realistic", "active", "firehose")
DEFAULT_ETFS = "SPY,QQQ,IWM,DIA,TLT,GLD,SLV,XLF,XLE,XLV,XLI,XLP,XLU,XLY,SMH,ARKK"

# Ports of the embedded stack before FLOW_PORT_OFFSET is added.
BROKER_PORT, BROKER_CONTROLLER_PORT, REGISTRY_PORT, REGISTRY_MANAGEMENT_PORT, METRICS_PORT = 19092, 19093, 18081, 18082, 9464


def _text(value: str) -> str:
    return value


def _integer(low: int | None = None, high: int | None = None) -> Callable[[str], int]:
    bounds = f"a whole number{'' if low is None else f' >= {low}'}{'' if high is None else f' and <= {high}'}"

    def parse(value: str) -> int:
        try:
            number = int(value.strip())
        except ValueError:
            raise ValueError(bounds) from None
        if (low is not None and number < low) or (high is not None and number > high):
            raise ValueError(bounds)
        return number

    parse.__doc__ = bounds
    return parse


def _real(low: float) -> Callable[[str], float]:
    bounds = f"a number >= {low:g}"

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            raise ValueError(bounds) from None
        if not number >= low or number == float("inf"):
            raise ValueError(bounds)
        return number

    parse.__doc__ = bounds
    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    words = "one of " + ", ".join(word or "(blank)" for word in allowed)

    def parse(value: str) -> str:
        word = value.strip().lower()
        if word not in allowed:
            raise ValueError(words)
        return word

    parse.__doc__ = words
    return parse


def _boolean(value: str) -> bool:
    """1, true, yes, on / 0, false, no, off"""
    word = value.strip().lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    raise ValueError("one of 1, true, yes, on / 0, false, no, off")


def _words(value: str) -> tuple[str, ...]:
    """words separated by commas"""
    return tuple(dict.fromkeys(word.strip().upper() for word in value.split(",") if word.strip()))


def _paths(value: str) -> tuple[str, ...]:
    """paths separated by commas"""
    return tuple(word.strip() for word in value.split(",") if word.strip())


def _placement(value: str) -> tuple[tuple[str, int], ...]:
    """UNDERLYING=PARTITION pairs separated by commas, such as SPY=3,TSLA=5"""
    pairs: dict[str, int] = {}
    for word in filter(None, (part.strip() for part in value.split(","))):
        name, sep, number = word.partition("=")
        if not sep or not name.strip() or not number.strip().isdigit() or name.strip().upper() in pairs:
            raise ValueError("UNDERLYING=PARTITION pairs separated by commas, each underlying once, such as SPY=3,TSLA=5")
        pairs[name.strip().upper()] = int(number)
    return tuple(sorted(pairs.items()))


def _time(value: str) -> int | None:
    """milliseconds since 1970 UTC, or an ISO date or time (UTC unless it names a zone); blank for the feed's own default"""
    from datetime import UTC, datetime

    word = value.strip()
    if not word:
        return None
    if word.lstrip("-").isdigit():
        return int(word)
    try:
        moment = datetime.fromisoformat(word)
    except ValueError:
        raise ValueError("milliseconds since 1970 UTC, or an ISO date or time") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _namespace(value: str) -> str:
    """lower-case letters, digits and _, at most 63, beginning with a letter or digit; blank to derive it from the feed"""
    if value and not NAMESPACE_PATTERN.fullmatch(value):
        raise ValueError("lower-case letters, digits and _, at most 63, beginning with a letter or digit")
    return value


def _optional_integer(value: str) -> int | None:
    """a whole number > 0, or blank"""
    if not value.strip():
        return None
    return _integer(1)(value)


def _optional_real(value: str) -> float | None:
    """a number > 0, or blank"""
    if not value.strip():
        return None
    number = _real(0)(value)
    if number == 0:
        raise ValueError("a number > 0, or blank")
    return number


def _var(name: str, default: str, parse: Callable[[str], Any], about: str, *, rules: bool = False) -> Any:
    """Declare a variable; `rules` marks those whose value decides an output (they enter the configuration hash)."""
    return field(default=parse(default), metadata={"name": name, "default": default, "parse": parse, "about": about, "rules": rules})


@dataclass(frozen=True)
class Settings:
    """The effective settings of one process; see `Settings.load`."""

    # Where things are
    kafka_bootstrap_servers: str = _var(
        "KAFKA_BOOTSTRAP_SERVERS", "", _text, "brokers, host:port separated by commas; blank means the embedded broker"
    )
    schema_registry_url: str = _var(
        "SCHEMA_REGISTRY_URL", "", _text, "a Confluent-compatible registry, its path kept; blank means the embedded registry"
    )
    flow_namespace: str = _var(
        "FLOW_NAMESPACE", "", _namespace, "the time line to work in; blank: demo for synthetic, tape_<name> for files, live for live feeds"
    )
    flow_home: str = _var("FLOW_HOME", "~/.flowapp", _text, "data directory: components, logs, state")
    flow_port_offset: int = _var("FLOW_PORT_OFFSET", "0", _integer(0, 40000), "added to every port of the embedded stack")
    worker_id: int = _var("WORKER_ID", "0", _integer(0, 999), "number of this worker on this machine; its metrics port is 9464 + WORKER_ID")
    topic_partitions: int = _var("TOPIC_PARTITIONS", "8", _integer(1, 1024), "partitions of every topic of a namespace")
    topic_placement: tuple[tuple[str, int], ...] = _var(
        "TOPIC_PLACEMENT", "", _placement, "partitions of named underlyings, such as SPY=3,TSLA=5"
    )
    topic_retention_bytes: int = _var("TOPIC_RETENTION_BYTES", "-1", _integer(-1), "bytes kept per partition, -1 for all; never by time")
    topic_replication: int = _var("TOPIC_REPLICATION", "1", _integer(1, 9), "replicas of every topic")
    checkpoint_ms: int = _var("CHECKPOINT_MS", "1000", _integer(10), "time between checkpoints of an agent, wall clock, ms")

    # Rules: what decides an output
    rules: str = _var("RULES", "standard", _choice("reference", "standard"), "rule set", rules=True)
    options_signal_mode: str = _var(
        "OPTIONS_SIGNAL_MODE", "smart-money", _choice("smart-money", "balanced", "all"), "which prints pass the signal filter", rules=True
    )
    options_signal_min_notional: float = _var(
        "OPTIONS_SIGNAL_MIN_NOTIONAL", "10000", _real(0), "least notional, dollars; also the large-print floor", rules=True
    )
    options_signal_etf_min_notional: float = _var(
        "OPTIONS_SIGNAL_ETF_MIN_NOTIONAL", "50000", _real(0), "least notional of an ETF's option, dollars", rules=True
    )
    options_signal_bid_side_min_notional: float = _var(
        "OPTIONS_SIGNAL_BID_SIDE_MIN_NOTIONAL", "25000", _real(0), "least notional at the bid, dollars; also the sweep floor", rules=True
    )
    options_signal_mid_min_notional: float = _var(
        "OPTIONS_SIGNAL_MID_MIN_NOTIONAL", "20000", _real(0), "least notional at the midpoint, dollars", rules=True
    )
    options_signal_nbbo_max_age_ms: int = _var(
        "OPTIONS_SIGNAL_NBBO_MAX_AGE_MS", "1500", _integer(0), "age from which an option quote is stale, ms", rules=True
    )
    nbbo_max_age_ms: int | None = _var(
        "NBBO_MAX_AGE_MS",
        "",
        _optional_integer,
        "standard: alias of OPTIONS_SIGNAL_NBBO_MAX_AGE_MS; reference: age limit of a packet's counters, 1000 when blank, ms",
        rules=True,
    )
    equity_quote_max_age_ms: int = _var(
        "EQUITY_QUOTE_MAX_AGE_MS", "1000", _integer(0), "age from which an equity quote is stale, ms", rules=True
    )
    options_signal_etf_underlyings: tuple[str, ...] = _var(
        "OPTIONS_SIGNAL_ETF_UNDERLYINGS", DEFAULT_ETFS, _words, "underlyings that are ETFs", rules=True
    )
    cluster_window_ms: int = _var("CLUSTER_WINDOW_MS", "500", _integer(1, 3_600_000), "cluster and structure window W, ms", rules=True)
    cancel_window_ms: int = _var(
        "CANCEL_WINDOW_MS", "900000", _integer(0), "tick time for which a cancel can reach a decided packet, ms", rules=True
    )
    rolling_window_size: int = _var("ROLLING_WINDOW_SIZE", "50", _integer(1, 10_000), "values of a rolling baseline", rules=True)
    rolling_ttl_sec: int = _var(
        "ROLLING_TTL_SEC", "86400", _integer(0), "life of a rolling baseline after its last update, seconds", rules=True
    )
    trf_delay_ms: int = _var("TRF_DELAY_MS", "10000", _integer(0), "longest delay of an off-exchange report, ms")

    # Edge
    options_ingest_adapter: str = _var("OPTIONS_INGEST_ADAPTER", "synthetic", _choice(*OPTIONS_ADAPTERS), "options feed")
    equities_ingest_adapter: str = _var("EQUITIES_INGEST_ADAPTER", "synthetic", _choice(*EQUITIES_ADAPTERS), "equities feed")
    options_files: tuple[str, ...] = _var("OPTIONS_FILES", "", _paths, "recorded option prints and quotes, paths separated by commas")
    equities_files: tuple[str, ...] = _var("EQUITIES_FILES", "", _paths, "recorded equity prints and quotes, paths separated by commas")
    flow_speed: float = _var("FLOW_SPEED", "1", _real(0), "pace of a file: 1 as recorded, 0 as fast as possible")
    tick_ms: int = _var("TICK_MS", "250", _integer(1, 60_000), "multiples at which ticks stand, event time, ms")
    edge_reorder_ms: int | None = _var(
        "EDGE_REORDER_MS", "", _optional_integer, "wait for stragglers, ms; blank: 0 for files and synthetic, 50 for live"
    )
    synthetic_seed: int = _var("SYNTHETIC_SEED", "1", _integer(0), "seed of the synthetic market")
    synthetic_start: int | None = _var(
        "SYNTHETIC_START", "", _time, "start of the synthetic market's virtual clock; blank: the first start's own time, kept in ops.runs"
    )
    synthetic_rate: float | None = _var(
        "SYNTHETIC_RATE", "", _optional_real, "option prints a second, wall clock; blank: one generator tick every EMIT_INTERVAL_MS"
    )
    emit_interval_ms: float | None = _var("EMIT_INTERVAL_MS", "", _optional_real, "1000 / SYNTHETIC_RATE; both set and unequal is an error")
    synthetic_market_mode: str = _var("SYNTHETIC_MARKET_MODE", "realistic", _choice(*PROFILES), "synthetic profile of both feeds")
    synthetic_options_mode: str = _var("SYNTHETIC_OPTIONS_MODE", "", _choice("", *PROFILES), "override for options")
    synthetic_equities_mode: str = _var("SYNTHETIC_EQUITIES_MODE", "", _choice("", *PROFILES), "override for equities")
    testing_mode: bool = _var("TESTING_MODE", "false", _boolean, "let only some events through, see TESTING_THROTTLE_MS")
    testing_throttle_ms: int = _var("TESTING_THROTTLE_MS", "200", _integer(0), "least feed time between two events of a kind, ms")

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, dotenv: Path | None = None, **overrides: Any) -> Settings:
        """Read the environment, else `.env`; `overrides` (by field name, None ignored) win over both.

        Raises:
            SettingError: names every wrong variable, its value and what is allowed.
        """
        if dotenv is None:
            dotenv = Path(".env")
        source = {**read_dotenv(dotenv), **(os.environ if environ is None else environ)}
        values: dict[str, Any] = {}
        wrong: list[str] = []
        for item in fields(cls):
            name, parse = item.metadata["name"], item.metadata["parse"]
            override = overrides.get(item.name)
            if override is not None:
                values[item.name] = override
                continue
            text = source.get(name)
            if text is None or (not text.strip() and item.metadata["default"] == ""):
                continue
            try:
                values[item.name] = parse(text)
            except ValueError as error:
                wrong.append(f"{name} was {text!r}; allowed: {error}")
        if not wrong:
            wrong = _take_alias(values)
        if not wrong:
            settings = cls(**values)
            wrong = settings._conflicts()
        if wrong:
            raise SettingError("; ".join(wrong))
        return settings

    def _conflicts(self) -> list[str]:
        wrong = []
        if self.synthetic_rate and self.emit_interval_ms and abs(1000 / self.synthetic_rate - self.emit_interval_ms) > 1e-9:
            wrong.append(
                f"SYNTHETIC_RATE was {self.synthetic_rate:g} and EMIT_INTERVAL_MS was {self.emit_interval_ms:g}; allowed: one of them, or EMIT_INTERVAL_MS = 1000 / SYNTHETIC_RATE"
            )
        for name, partition in self.topic_placement:
            if partition >= self.topic_partitions:
                wrong.append(f"TOPIC_PLACEMENT was {name}={partition}; allowed: partitions 0 to {self.topic_partitions - 1}")
        return wrong

    @property
    def home(self) -> Path:
        """FLOW_HOME as an absolute path."""
        return Path(self.flow_home).expanduser().absolute()

    @property
    def embedded_broker(self) -> bool:
        """Whether the broker is the embedded one."""
        return not self.kafka_bootstrap_servers

    @property
    def embedded_registry(self) -> bool:
        """Whether the schema registry is the embedded one."""
        return not self.schema_registry_url

    @property
    def bootstrap(self) -> str:
        """Bootstrap servers, the embedded broker's when none are set."""
        return self.kafka_bootstrap_servers or f"127.0.0.1:{self.port(BROKER_PORT)}"

    @property
    def registry_url(self) -> str:
        """Registry URL, the embedded registry's when none is set."""
        return (self.schema_registry_url or f"http://127.0.0.1:{self.port(REGISTRY_PORT)}/apis/ccompat/v7").rstrip("/")

    @property
    def metrics_port(self) -> int:
        """Loopback port of this worker's metrics."""
        return self.port(METRICS_PORT) + self.worker_id

    @property
    def namespace(self) -> str:
        """The time line: FLOW_NAMESPACE, else derived from the feeds."""
        if self.flow_namespace:
            return self.flow_namespace
        files = self.options_files or self.equities_files
        if "files" in (self.options_ingest_adapter, self.equities_ingest_adapter) and files:
            return tape_namespace(files[0])
        return "demo"

    @property
    def options_profile(self) -> str:
        """Synthetic profile of the options feed (reference 17.1)."""
        return self.synthetic_options_mode or self.synthetic_market_mode

    @property
    def equities_profile(self) -> str:
        """Synthetic profile of the equities feed (reference 17.1)."""
        return self.synthetic_equities_mode or self.synthetic_market_mode

    @property
    def config_hash(self) -> str:
        """Hash of the settings that decide an output; stands in every lineage."""
        effective = {item.metadata["name"]: getattr(self, item.name) for item in fields(self) if item.metadata["rules"]}
        if self.rules == "standard":
            del effective["NBBO_MAX_AGE_MS"]
        text = json.dumps(effective, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def port(self, base: int) -> int:
        """Shift a default port by FLOW_PORT_OFFSET."""
        return base + self.flow_port_offset

    def environment(self, complete: bool = False) -> dict[str, str]:
        """Return the variables that differ from their defaults; `complete` gives all, so that a child's `.env` changes nothing."""
        out = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if complete or value != item.default:
                out[item.metadata["name"]] = _as_text(value)
        return out


def _take_alias(values: dict[str, Any]) -> list[str]:
    """Under `standard` NBBO_MAX_AGE_MS is another name of OPTIONS_SIGNAL_NBBO_MAX_AGE_MS."""
    alias = values.get("nbbo_max_age_ms")
    if alias is None or values.get("rules", "standard") != "standard":
        return []
    ruling = values.setdefault("options_signal_nbbo_max_age_ms", alias)
    if ruling == alias:
        return []
    return [f"NBBO_MAX_AGE_MS was {alias} and OPTIONS_SIGNAL_NBBO_MAX_AGE_MS was {ruling}; allowed: equal values, or only one of them set"]


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{part[0]}={part[1]}" if isinstance(part, tuple) else str(part) for part in value)
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def tape_namespace(path: str) -> str:
    """Return the namespace of a file: `tape_` and the file's name without its endings."""
    stem = Path(path).name.split(".")[0] if not Path(path).name.startswith("test_data.") else Path(path).name
    return "tape_" + (re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "file")[:58]


def read_dotenv(path: Path) -> dict[str, str]:
    """Read NAME=value lines; blank lines, `#` comments, `export` and matching quotes are understood."""
    if not path.is_file():
        return {}
    values = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, sep, value = text.partition("=")
        if not sep:
            raise SettingError(f"{path}:{number} was {line!r}; allowed: NAME=value")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        else:
            value = re.split(r"\s+#", value, maxsplit=1)[0]
        values[name.strip()] = value
    return values


def variable_table() -> list[tuple[str, str, str, str]]:
    """Return (variable, default, allowed, meaning) of every setting, in order of declaration."""
    return [
        (f.metadata["name"], f.metadata["default"], (f.metadata["parse"].__doc__ or "any text").strip(), f.metadata["about"])
        for f in fields(Settings)
    ]
