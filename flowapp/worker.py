"""The Faust app: what `faust -A flowapp worker` runs. Wiring only; the work is done by `engine`."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import click
import faust
import faust.cli.worker  # registers the command that `_allow_loop_option` extends
from faust.app.base import BootStrategy
from faust.cli.base import cli
from faust.types import TP

from flowapp import logs, runs, topic_admin, topics
from flowapp.core.fold import Fold
from flowapp.engine.ending import EXIT_REFUSED, end_process
from flowapp.engine.lock import StateLock
from flowapp.engine.metrics import Metrics
from flowapp.engine.partition import Partition, Step, no_step
from flowapp.engine.poll import Run
from flowapp.engine.producer import KafkaProducer
from flowapp.engine.runner import Codec, Hooks, Runner
from flowapp.engine.store import BulkTableManager
from flowapp.engine.transport import RunSchema
from flowapp.errors import BrokerUnavailable, FlowError, NamespaceError, RegistryUnavailable
from flowapp.settings import Settings

SESSION_SECONDS = 10.0
HEARTBEAT_SECONDS = 2.0
COMMIT_SECONDS = 0.5
REQUEST_SECONDS = 40.0
MAX_POLL_RECORDS = 20_000
PARTITION_FETCH_BYTES = 2 << 20
BUFFERED_RUNS = 64
GC_THRESHOLD = 100_000
SWITCH_SECONDS = 0.0005
RETRY_SECONDS = 2.0
REPEAT_SECONDS = 10.0

T = TypeVar("T")
log = logging.getLogger("flowapp.worker")


class NoWeb(BootStrategy):  # type: ignore[misc]
    """Starts everything but Faust's web server, whatever the command line says: it would listen on every address."""

    enable_web = False


class PlainWorker(faust.Worker):  # type: ignore[misc]
    """Faust's worker process without its progress spinner, for which every library would log at DEBUG."""

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        self.spinner = None

    async def _sentinel_task(self) -> None:
        """Nothing: mode sleeps a second here, when everything has stopped already."""


class FlowApp(faust.App):  # type: ignore[misc]
    """A Faust app whose agents are folds, each driven by a runner."""

    BootStrategy = NoWeb
    settings: Settings
    codec: Codec
    metrics: Metrics
    on_step: Step
    runners: dict[str, Runner]
    _rooms: dict[str, asyncio.Event]

    def add_fold(self, fold: Fold) -> faust.types.AgentT:
        """Make an agent of a fold: its topic, its table, its runner."""
        producer = KafkaProducer(self.settings.bootstrap, client_id=f"{self.conf.id}-{fold.name}-{self.settings.worker_id}")
        number, settings = self.settings.worker_id, self.settings
        directory = state_directory(settings) / fold.name
        table = topics.table_name(fold.name)
        self.runners[table] = Runner(
            fold, self.codec, producer,
            lambda partition: Partition(settings.bootstrap, settings.namespace, fold, partition, directory, self.on_step),
            Hooks(partial(self._acked, fold), partial(self._room, table), partial(self._configured, fold)),
            namespace=settings.namespace, worker=str(number), checkpoint_ms=settings.checkpoint_ms, metrics=self.metrics,
            on_step=self.on_step,
        )  # fmt: skip
        self._rooms[table] = asyncio.Event()
        self.Table(table, key_type=bytes, value_type=bytes, partitions=settings.topic_partitions)
        topic = self.topic(topics.full_name(settings.namespace, fold.input_topic), schema=RunSchema())

        async def agent(stream: Any) -> None:
            async for event in stream.noack().events():
                await self._feed(table, event)

        return self.agent(topic, name=fold.name, concurrency=1)(agent)

    async def _feed(self, table: str, event: Any) -> None:
        """Hand a run to the runner; wait, and so let partitions pause, while its queue is full."""
        message, room = event.message, self._rooms[table]
        run = Run(message.partition, event.value, message.generation_id, self.consumer.highwater(message.tp))
        if not self.runners[table].offer(run):
            room.clear()
            await room.wait()

    def input_topic(self, runner: Runner) -> str:
        """Return the full name of a runner's raw topic."""
        return topics.full_name(self.settings.namespace, runner.fold.input_topic)

    def next_offsets(self) -> dict[TP, int]:
        """Return where to read on from, by raw partition owned."""
        return {
            TP(self.input_topic(runner), partition): offset
            for runner in self.runners.values()
            for partition, offset in runner.next_offsets().items()
        }

    def _acked(self, fold: Fold, partition: int, offset: int) -> None:
        tp = TP(topics.full_name(self.settings.namespace, fold.input_topic), partition)
        self.loop.call_soon_threadsafe(self.consumer.acknowledge, tp, offset)

    def _room(self, table: str) -> None:
        self.loop.call_soon_threadsafe(self._rooms[table].set)

    def _configured(self, fold: Fold, partitions: Sequence[Partition]) -> None:
        """Record from which offset of each partition rules and configuration hold."""
        settings = json.dumps(self.settings.environment(), sort_keys=True)
        rows = [
            runs.config_row(fold.name, p.place.partition, p.offset + 1, fold.rules, fold.config, fold.version, p.was_clean, settings)
            for p in partitions
        ]
        if rows:
            patiently(lambda: runs.write(self.settings, rows))

    async def on_first_start(self) -> None:
        await self._in_thread(self._prepare)
        await super().on_first_start()

    def _prepare(self) -> None:
        # Records come in tens of thousands; at the default threshold the collector takes longer than parsing them.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 50, 100)
        # Decoding gives the lock back and takes it again many times; each time it would wait this long for a busy thread.
        sys.setswitchinterval(SWITCH_SECONDS)
        self._lock = StateLock(state_directory(self.settings))
        self.metrics.serve(self.settings.metrics_port)
        # Topics first: who differs from them must not pin a new namespace.
        patiently(lambda: check_topics(self.settings, [runner.fold for runner in self.runners.values()]))
        patiently(lambda: runs.Pins.check_or_write(self.settings))

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self._each(Runner.revoke)
        await super()._on_partitions_revoked(revoked)

    async def on_stop(self) -> None:
        await self._each(Runner.finish)
        await super().on_stop()

    async def _each(self, call: Callable[[Runner], None]) -> None:
        await asyncio.gather(*(self._in_thread(partial(call, runner)) for runner in self.runners.values()))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """Run something that blocks; an error there ends the process, before Faust can restart anything."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, call)
        except Exception as error:
            end_process(error)


def _allow_loop_option(command: click.Command | None) -> None:
    # Faust reads -L from the whole command line when it is imported, but lets it stand only before `worker`.
    if command is not None and all("-L" not in option.opts for option in command.params):
        command.params.append(click.Option(["-L", "--loop"], expose_value=False, help="Event loop implementation to use."))


_allow_loop_option(cli.commands.get("worker"))


def patiently(call: Callable[[], T]) -> T:
    """Repeat a call while broker or registry are away."""
    while True:
        try:
            return call()
        except (BrokerUnavailable, RegistryUnavailable) as error:
            log.warning("waiting: %s", error)
            time.sleep(RETRY_SECONDS)


def check_topics(settings: Settings, folds: Iterable[Fold]) -> None:
    """Compare the topics these folds need with those on the broker.

    Raises:
        NamespaceError: one is missing, or has another number of partitions.
    """
    needed = {topics.full_name(settings.namespace, fold.input_topic) for fold in folds}
    needed |= {topics.changelog_name(settings.namespace, fold.name) for fold in folds}
    existing: Mapping[str, int] = topic_admin.partition_counts(topic_admin.admin(settings), settings)
    missing = sorted(needed - set(existing))
    if missing:
        raise NamespaceError(f"namespace {settings.namespace} lacks {', '.join(missing)}; create its topics with: flow init")
    topic_admin.check_partitions(settings, topic_admin.plans(settings), dict(existing))


class Sparing(logging.Filter):
    """Lets each complaint of the Kafka client through once every few seconds: it repeats them ten times a second."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        now = time.monotonic()
        if now < self._next.get(record.msg, 0.0):
            return False
        self._next[record.msg] = now + REPEAT_SECONDS
        return True


def logging_config(service: str) -> dict[str, Any]:
    """Return what Faust hands to `logging`: one JSON object a line, libraries from WARNING up."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": logs.JsonFormatter, "service": service}},
        "filters": {"sparing": {"()": Sparing}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": sys.stderr, "filters": ["sparing"]}},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {
            "flowapp": {"level": "INFO"},
            # Faust logs its services' starts and stops under the modules of our subclasses.
            "flowapp.engine.transport": {"level": "WARNING"},
            "flowapp.engine.store": {"level": "WARNING"},
        },
    }


def state_directory(settings: Settings) -> Any:
    """Return where this worker keeps its state."""
    return settings.home / settings.namespace / "state" / str(settings.worker_id)


def create_app(settings: Settings, codec: Codec, on_step: Step = no_step) -> FlowApp:
    """Build the app without agents.

    Args:
        on_step: told each step of a checkpoint just before it is taken.
    """
    name = topics.app_id(settings.namespace)
    app = FlowApp(
        name,
        broker=[f"batched://{address.strip()}" for address in settings.bootstrap.split(",")],
        store="bulk://",
        datadir=state_directory(settings),
        TableManager=BulkTableManager,
        Worker=PlainWorker,
        logging_config=logging_config(f"worker-{settings.worker_id}"),
        worker_redirect_stdouts=False,
        web_enabled=False,
        topic_partitions=settings.topic_partitions,
        topic_replication_factor=settings.topic_replication,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_group_instance_id=f"{socket.gethostname()}-{settings.worker_id}",
        consumer_max_fetch_size=PARTITION_FETCH_BYTES,
        broker_max_poll_records=MAX_POLL_RECORDS,
        broker_session_timeout=SESSION_SECONDS,
        broker_rebalance_timeout=SESSION_SECONDS,
        broker_heartbeat_interval=HEARTBEAT_SECONDS,
        broker_request_timeout=REQUEST_SECONDS,
        broker_commit_interval=COMMIT_SECONDS,
        stream_buffer_maxsize=BUFFERED_RUNS,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        table_standby_replicas=0,
    )
    app.settings, app.codec, app.on_step = settings, codec, on_step
    app.metrics, app.runners, app._rooms = Metrics(), {}, {}
    return app


def main_app() -> FlowApp:
    """Build the app of this process from its settings, with every agent there is."""
    from flowapp.agents import options
    from flowapp.records.codec import Codec as AvroCodec
    from flowapp.records.registry import HttpRegistry

    try:
        settings = Settings.load()
    except FlowError as error:
        logs.configure("worker")
        log.critical(str(error))
        sys.exit(EXIT_REFUSED)
    app = create_app(settings, AvroCodec(HttpRegistry(settings.registry_url)))
    options.register(app)
    return app
