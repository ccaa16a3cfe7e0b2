"""The embedded broker: Apache Kafka, KRaft, one node, durable, on loopback only."""

from __future__ import annotations

import base64
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from flowapp.embedded import java
from flowapp.embedded.ports import LOOPBACK, answers
from flowapp.embedded.process import Command
from flowapp.errors import StackError
from flowapp.settings import BROKER_CONTROLLER_PORT, BROKER_PORT, Settings

HEAP_MEBIBYTES = 512
MESSAGE_MAX_BYTES = 8 << 20
CLEANER_BUFFER_BYTES = 16 << 20
FORMAT_SECONDS = 60.0
METADATA_TIMEOUT_SECONDS = 3.0
# A group that nobody joins for a week must find its offsets again: ten years.
OFFSETS_RETENTION_MINUTES = 10 * 365 * 24 * 60

FIXED_CONFIGURATION: Mapping[str, object] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "broker.session.timeout.ms": 3000,
    "broker.heartbeat.interval.ms": 500,
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": 0,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 8,
    "offsets.retention.minutes": OFFSETS_RETENTION_MINUTES,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "message.max.bytes": MESSAGE_MAX_BYTES,
    "replica.fetch.max.bytes": MESSAGE_MAX_BYTES,
    "log.retention.ms": -1,
    "log.retention.bytes": -1,
    "log.cleaner.dedupe.buffer.size": CLEANER_BUFFER_BYTES,
    "num.network.threads": 2,
    "num.io.threads": 4,
}

LOG4J2 = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.alwaysWriteExceptions = false
appender.console.layout.pattern = \
{"level":"%p","service":"broker","msg":"%enc{%m %ex}{JSON}","ts":"%d{yyyy-MM-dd'T'HH:mm:ss.SSS'Z'}{UTC}","context":{"logger":"%c{1}"}}%n
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
logger.quiet.name = org.apache.kafka.common.utils.AppInfoParser
logger.quiet.level = WARN
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = WARN
logger.storage.name = org.apache.kafka.storage.internals.log
logger.storage.level = WARN
"""


class Broker:
    """One node under FLOW_HOME/broker."""

    name = "broker"

    def __init__(self, settings: Settings, component: Path) -> None:
        self.settings = settings
        self.jars = component
        self.folder = settings.home / "broker"
        self.data = self.folder / "data"
        self.properties = self.folder / "server.properties"
        self.logging = self.folder / "log4j2.properties"
        self.port = settings.port(BROKER_PORT)
        self.controller_port = settings.port(BROKER_CONTROLLER_PORT)

    @property
    def ports(self) -> Mapping[str, int]:
        """What it listens on."""
        return {"client port": self.port, "controller port": self.controller_port}

    @property
    def bootstrap(self) -> str:
        """Where clients connect."""
        return f"{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        """Write the configuration and format the storage once; the cluster id then stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.properties.write_text(self.configuration())
        self.logging.write_text(LOG4J2)
        if self.cluster_id() is None:
            self._format()

    def command(self) -> Command:
        """Return how the node is run."""
        return Command(self.name, self._java("kafka.Kafka", str(self.properties)), java.environment(), self.folder)

    def cluster_id(self) -> str | None:
        """Return the id the storage was formatted with."""
        try:
            lines = (self.data / "meta.properties").read_text().splitlines()
        except OSError:
            return None
        return next((line.partition("=")[2].strip() for line in lines if line.startswith("cluster.id=")), None)

    def is_ready(self) -> bool:
        """Tell whether our own node answers clients.

        Raises:
            StackError: another cluster answers on our port.
        """
        if not answers(self.port):
            return False
        found = answering_cluster_id(self.bootstrap)
        if found is None:
            return False
        if found != self.cluster_id():
            own = self.cluster_id()
            raise StackError(f"the broker on {self.bootstrap} was cluster {found}, not this stack's {own}; set FLOW_PORT_OFFSET")
        return True

    def configuration(self) -> str:
        """Return the text of server.properties."""
        values: dict[str, object] = {
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller_port}",
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self.port},CONTROLLER://{LOOPBACK}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self.port}",
            "log.dirs": self.data,
            **FIXED_CONFIGURATION,
        }
        return "".join(f"{name}={_escaped(str(value))}\n" for name, value in values.items())

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if cluster.startswith("-"):  # the tool would take it for an option
            cluster = "A" + cluster[1:]
        arguments = self._java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self.properties))
        done = subprocess.run(
            arguments, env=java.environment(), cwd=self.folder, capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False
        )
        if done.returncode or self.cluster_id() is None:
            raise StackError(f"the broker's storage {self.data} could not be formatted: {(done.stderr or done.stdout).strip()[-500:]}")

    def _java(self, *arguments: str) -> tuple[str, ...]:
        logging = f"-Dlog4j2.configurationFile={self.logging}"
        return java.command(HEAP_MEBIBYTES, logging, "-cp", f"{self.jars}/*", *arguments)


def _escaped(value: str) -> str:
    """Write a value as a Java properties file wants it, which is read as Latin-1."""
    return "".join(char if char.isascii() else f"\\u{ord(char):04x}" for char in value.replace("\\", "\\\\"))


def answering_cluster_id(bootstrap: str, seconds: float = METADATA_TIMEOUT_SECONDS) -> str | None:
    """Return the id of the cluster that answers, None when none does."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": int(seconds * 1000)})
    try:
        found: str | None = client.list_topics(timeout=seconds).cluster_id
    except KafkaException:
        return None
    return found
