"""The embedded schema registry: Apicurio with an H2 file, speaking Confluent's interface, on loopback only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flowapp.embedded import java
from flowapp.embedded.ports import LOOPBACK
from flowapp.embedded.process import Command
from flowapp.settings import REGISTRY_MANAGEMENT_PORT, REGISTRY_PORT, Settings

HEAP_MEBIBYTES = 256
HTTP_TIMEOUT_SECONDS = 3.0
COMPATIBLE_PATH = "/apis/ccompat/v7"


class Registry:
    """One server under FLOW_HOME/registry."""

    name = "registry"

    def __init__(self, settings: Settings, component: Path) -> None:
        self.settings = settings
        self.component = component
        self.folder = settings.home / "registry"
        self.port = settings.port(REGISTRY_PORT)
        self.management_port = settings.port(REGISTRY_MANAGEMENT_PORT)

    @property
    def ports(self) -> Mapping[str, int]:
        """What it listens on."""
        return {"client port": self.port, "management port": self.management_port}

    @property
    def url(self) -> str:
        """Confluent-compatible root."""
        return f"http://{LOOPBACK}:{self.port}{COMPATIBLE_PATH}"

    def prepare(self) -> None:
        """Make the folder of its database."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> Command:
        """Return how the server is run."""
        arguments = java.command(HEAP_MEBIBYTES, "-jar", "quarkus-run.jar")
        return Command(self.name, arguments, java.environment(self.variables()), self.component)

    def variables(self) -> dict[str, str]:
        """Return its configuration."""
        return {
            "QUARKUS_HTTP_HOST": LOOPBACK,
            "QUARKUS_HTTP_PORT": str(self.port),
            # Without a host of its own the management interface binds every address.
            "QUARKUS_MANAGEMENT_HOST": LOOPBACK,
            "QUARKUS_MANAGEMENT_PORT": str(self.management_port),
            "QUARKUS_LOG_CONSOLE_JSON_ENABLED": "true",
            "QUARKUS_HTTP_ACCESS_LOG_ENABLED": "false",
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            # With H2's default delay a kill -9 loses acknowledged schemas and gives their ids to others.
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{self.folder / 'registry'};WRITE_DELAY=0",
        }

    def is_ready(self) -> bool:
        """Tell whether the server answers; that it is ours follows from the port having been free and the child alive."""
        return answers(self.url)


def answers(url: str) -> bool:
    """Tell whether a registry answers under `url`."""
    import requests

    try:
        response = requests.get(f"{url}/subjects", timeout=HTTP_TIMEOUT_SECONDS)
    except requests.RequestException:
        return False
    return response.status_code == 200
