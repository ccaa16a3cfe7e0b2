"""What every test may ask for: one broker and one registry per run, and namespaces on them."""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowapp import topic_admin
from flowapp.embedded import pins, progress
from flowapp.embedded.download import Downloader, components_folder
from flowapp.embedded.kafka import Broker
from flowapp.embedded.ports import is_free
from flowapp.embedded.process import Child
from flowapp.embedded.registry import Registry
from flowapp.embedded.service import Service, start
from flowapp.settings import (
    BROKER_CONTROLLER_PORT,
    BROKER_PORT,
    METRICS_PORT,
    REGISTRY_MANAGEMENT_PORT,
    REGISTRY_PORT,
    Settings,
)

NAMESPACE_NUMBERS = itertools.count()
NO_DOTENV = Path(os.devnull)
BASE_PORTS = (BROKER_PORT, BROKER_CONTROLLER_PORT, REGISTRY_PORT, REGISTRY_MANAGEMENT_PORT, *range(METRICS_PORT, METRICS_PORT + 8))
# Every port stays below the range from which the operating system lends ports to clients.
HIGHEST_OFFSET = 32768 - BROKER_CONTROLLER_PORT - 100


def free_port_offset() -> int:
    """Return an offset at which every port of a stack is free now."""
    chance = random.Random(os.getpid() ^ random.SystemRandom().getrandbits(32))
    for _ in range(1000):
        offset = chance.randrange(1000, HIGHEST_OFFSET)
        if all(is_free(port + offset) for port in BASE_PORTS):
            return offset
    raise RuntimeError("no free range of ports")


def new_home(folder: Path) -> Path:
    """Make a FLOW_HOME that shares the user's downloads and nothing else."""
    shared = components_folder(Settings.load().home)
    shared.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "components").symlink_to(shared, target_is_directory=True)
    return folder


class Running:
    """A part of the stack that a test may kill, pause and start again."""

    def __init__(self, service: Service, home: Path) -> None:
        self.service, self.home = service, home
        self.child: Child = start(service, home)

    @property
    def pid(self) -> int:
        """Process id of the present run."""
        return self.child.pid

    def kill(self) -> None:
        """Kill it as a power cut would."""
        self.child.kill()

    def stop(self) -> None:
        """Stop it in good order."""
        self.child.stop()

    def start(self) -> None:
        """Start it again on the same data."""
        self.child = start(self.service, self.home)

    def ensure(self) -> None:
        """Start it again if a test left it dead."""
        if not self.child.alive:
            self.start()

    def pause(self) -> None:
        """Stop it from running without ending it."""
        self.child.ask_to_stop(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused part run on."""
        self.child.ask_to_stop(signal.SIGCONT)


@pytest.fixture(scope="session")
def stack_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of this run's own stack, whatever the environment and `.env` say."""
    home = new_home(tmp_path_factory.mktemp("flow") / "home")
    return Settings.load({"FLOW_HOME": str(home), "FLOW_PORT_OFFSET": str(free_port_offset()), "TOPIC_PARTITIONS": "4"}, dotenv=NO_DOTENV)


@pytest.fixture(scope="session")
def downloader(stack_settings: Settings) -> Downloader:
    """The user's component cache."""
    return Downloader(stack_settings.home, progress.for_stream())


@pytest.fixture(scope="session")
def broker_of_session(stack_settings: Settings, downloader: Downloader) -> Iterator[Running]:
    """The run's one broker; tests use `broker`."""
    running = Running(Broker(stack_settings, downloader.ensure(pins.KAFKA)), stack_settings.home)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def registry_of_session(stack_settings: Settings, downloader: Downloader) -> Iterator[Running]:
    """The run's one registry; tests use `registry`."""
    running = Running(Registry(stack_settings, downloader.ensure(pins.REGISTRY)), stack_settings.home)
    yield running
    running.stop()


@pytest.fixture
def broker(broker_of_session: Running) -> Running:
    """The broker, running even if the test before killed it."""
    broker_of_session.ensure()
    return broker_of_session


@pytest.fixture
def registry(registry_of_session: Running) -> Running:
    """The registry with every schema registered, running even if the test before killed it."""
    registry_of_session.ensure()
    return registry_of_session


@pytest.fixture(scope="session")
def schemas_of_session(stack_settings: Settings, registry_of_session: Running) -> None:
    """Register every schema once."""
    from flowapp.records.registry import register_all

    register_all(stack_settings)


NamespaceFactory = Callable[..., Settings]


@pytest.fixture
def namespace(broker: Running, registry: Running, schemas_of_session: None, stack_settings: Settings) -> Iterator[NamespaceFactory]:
    """Make namespaces, `namespace(rules="reference", ...)`, each with its topics; they are deleted after the test."""
    made: list[Settings] = []

    def make(**overrides: object) -> Settings:
        name = f"t{os.getpid()}_{next(NAMESPACE_NUMBERS)}"
        environ = stack_settings.environment()
        settings = Settings.load(environ, dotenv=NO_DOTENV, **{"flow_namespace": name, **overrides})
        topic_admin.create(settings)
        made.append(settings)
        return settings

    yield make
    broker.ensure()
    for settings in made:
        topic_admin.delete(settings)
