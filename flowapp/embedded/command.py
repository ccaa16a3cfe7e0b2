"""`flow up`: the whole stack on this machine, or a part of it."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from flowapp import topic_admin
from flowapp.embedded import infra, programs, registry, runfile
from flowapp.embedded.locks import FileLock
from flowapp.embedded.supervisor import Reporter, Supervisor, supervise
from flowapp.errors import RegistryUnavailable, StackError
from flowapp.settings import PROFILES, Settings

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_parser(subparsers: Any) -> None:
    """Add `up` to the commands of `flow`."""
    parser = subparsers.add_parser("up", help="run broker, registry, worker and edge, and show packets; Ctrl-C stops all")
    parser.add_argument("--profile", choices=PROFILES, help="synthetic market, instead of SYNTHETIC_MARKET_MODE")
    parser.add_argument("--file", metavar="PATH", help="recorded prints instead of the synthetic market, several separated by commas")
    parser.add_argument("--only", choices=("infra", "services"), help="broker and registry alone, or what works on running ones")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until Ctrl-C."""
    settings = effective_settings(args.profile, args.file)
    scopes = [runfile.INFRA] if args.only == "infra" else [runfile.services_scope(settings.namespace)]
    if args.only is None:
        scopes.insert(0, runfile.INFRA)
    with locked(settings, scopes):
        reporter = Reporter(sys.stderr, settings.home)
        try:
            _run(settings, args.only, scopes, reporter)
        finally:
            reporter.close()
    return 0


def effective_settings(profile: str | None, file: str | None) -> Settings:
    """Return the settings as the options change them; a file takes the place of its kind of feed and the other is off.

    Raises:
        SourceError: the file cannot be read as prints.
    """
    settings = Settings.load(synthetic_market_mode=profile)
    if file is None:
        return settings
    from flowapp.edge.feeds import with_files

    return with_files(settings, [name.strip() for name in file.split(",")], options=None, equities=None)


@contextmanager
def locked(settings: Settings, scopes: list[str]) -> Iterator[None]:
    """Keep a second stack off the same FLOW_HOME, and end what a killed one left.

    Raises:
        StackError: one runs already.
    """
    held: list[FileLock] = []
    try:
        for scope in scopes:
            lock = FileLock(runfile.path_of(settings.home, scope, "lock"))
            if not lock.acquire():
                raise StackError(_already_running(settings, scope, lock.holder()))
            held.append(lock)
            runfile.end_leftovers(settings.home, scope)
        yield
    finally:
        for lock in held:
            lock.release()


def _already_running(settings: Settings, scope: str, pid: int | None) -> str:
    if scope == runfile.INFRA:
        return (
            f"a stack already runs in {settings.home} (process {pid}); stop it, work on it with `flow up --only services` "
            f"and another FLOW_NAMESPACE, or set FLOW_HOME and FLOW_PORT_OFFSET for a second one"
        )
    return f"namespace {settings.namespace} is already being worked on from {settings.home} (process {pid}); stop it or set FLOW_NAMESPACE"


def _run(settings: Settings, only: str | None, scopes: list[str], reporter: Reporter) -> None:
    parts = [] if only == "services" else infra.services(settings)
    supervisor = Supervisor(settings.home, reporter)

    def boot(supervisor: Supervisor) -> None:
        for service in parts:
            supervisor.add(service, runfile.INFRA)
        if only == "services":
            require_infra(settings)
        if only == "infra":
            reporter.say(f"ready: KAFKA_BOOTSTRAP_SERVERS={settings.bootstrap} SCHEMA_REGISTRY_URL={settings.registry_url}")
            return
        initialise(settings, reporter.say)
        _boot_programs(settings, supervisor, scopes[-1])

    with stopped_by_signals(supervisor.stop):
        supervise(supervisor, boot)


def _boot_programs(settings: Settings, supervisor: Supervisor, scope: str) -> None:
    supervisor.add(programs.Worker(settings), scope)
    supervisor.add(programs.watch(settings), scope, finishes=True)
    supervisor.add(programs.edge(settings), scope, finishes=True)


def initialise(settings: Settings, say: Callable[[str], None]) -> None:
    """Create topics and register schemas; may be run again."""
    from flowapp.records.registry import register_all

    created = topic_admin.create(settings)
    ids = register_all(settings)
    done = f"{len(created)} topics created" if created else "topics were there"
    say(f"namespace {settings.namespace}: {done}, {settings.topic_partitions} partitions; {len(ids)} schemas registered")


def require_infra(settings: Settings) -> None:
    """Check that broker and registry answer, and that an embedded broker is the one of this FLOW_HOME.

    Raises:
        BrokerUnavailable, RegistryUnavailable, StackError: say what is missing.
    """
    found = topic_admin.cluster_id(topic_admin.admin(settings), settings)
    if settings.embedded_broker:
        from flowapp.embedded.kafka import Broker

        own = Broker(settings, Path()).cluster_id()
        if own != found:
            raise StackError(
                f"the broker on {settings.bootstrap} was cluster {found}, not {own} of {settings.home}; set FLOW_HOME as it was"
            )
    if not registry.answers(settings.registry_url):
        raise RegistryUnavailable(f"no schema registry answered on {settings.registry_url}; start one with: flow up --only infra")


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and its kin ask for an orderly end; the second one is not waited for."""

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
