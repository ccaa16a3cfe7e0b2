"""Schema registries: who knows which id means which record shape.

Subjects are record names, shared by all namespaces. Nothing registers by itself: `register_all` does, when told to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import requests

from flowapp.errors import RegistryUnavailable, SchemaError
from flowapp.records import schemas
from flowapp.records.compatibility import Problem, check_local, lint
from flowapp.settings import Settings

CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS = 2.0, 10.0
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
COMPATIBILITY = "FULL_TRANSITIVE"
MAX_SCHEMA_ID = 2**31 - 1


class Registry(Protocol):
    """What the codec asks of a registry; raises RegistryUnavailable when there is no answer."""

    def schema_by_id(self, schema_id: int) -> Mapping[str, Any]:
        """Return the schema of an id; SchemaError when the registry does not know it."""

    def id_of(self, name: str) -> int:
        """Return the id of a record's own schema; SchemaError when it is not registered."""


class HttpRegistry:
    """A registry behind Confluent's API; the path of its URL is kept, answers are kept for ever."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.headers.update({"Accept": CONTENT_TYPE, "Content-Type": CONTENT_TYPE})
        self._schemas: dict[int, dict[str, Any]] = {}
        self._ids: dict[str, int] = {}

    def close(self) -> None:
        self._session.close()

    def schema_by_id(self, schema_id: int) -> Mapping[str, Any]:
        if schema_id not in self._schemas:
            if not 0 <= schema_id <= MAX_SCHEMA_ID:
                raise SchemaError(f"schema id was {schema_id}; allowed: 0 to {MAX_SCHEMA_ID}")
            answer = self._ask("GET", f"/schemas/ids/{schema_id}", unknown=f"schema id {schema_id}")
            self._schemas[schema_id] = _parse(answer["schema"], f"schema id {schema_id}")
        return self._schemas[schema_id]

    def id_of(self, name: str) -> int:
        if name not in self._ids:
            text = json.dumps({"schema": schemas.canonical_json(name)})
            self._ids[name] = self._ask("POST", f"/subjects/{name}", text, f"the schema of {name}")["id"]
        return self._ids[name]

    def register(self, name: str, text: str) -> int:
        """Register a schema's canonical text under its record name; the same text gets the same id."""
        answer = self._ask("POST", f"/subjects/{name}/versions", json.dumps({"schema": text}), f"subject {name}")
        return int(answer["id"])

    def require_full_compatibility(self, name: str) -> None:
        """Let the registry itself refuse a schema of this subject that breaks a reader of any version."""
        self._ask("PUT", f"/config/{name}", json.dumps({"compatibility": COMPATIBILITY}), f"subject {name}")

    def compatibility(self, name: str) -> str:
        """Return the compatibility rule of a subject."""
        return str(self._ask("GET", f"/config/{name}", unknown=f"a rule for subject {name}")["compatibilityLevel"])

    def subjects(self) -> list[str]:
        """Return all subjects."""
        return sorted(self._ask("GET", "/subjects", unknown="subjects"))

    def versions(self, name: str) -> dict[int, dict[str, Any]]:
        """Return every registered schema of a subject by version."""
        numbers = self._ask("GET", f"/subjects/{name}/versions", unknown=f"subject {name}")
        found = {n: self._ask("GET", f"/subjects/{name}/versions/{n}", unknown=f"{name} version {n}") for n in numbers}
        return {n: _parse(answer["schema"], f"{name} version {n}") for n, answer in found.items()}

    def _ask(self, method: str, path: str, body: str | None = None, unknown: str = "") -> Any:
        try:
            timeout = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
            answer = self._session.request(method, self.url + path, data=body, timeout=timeout)
        except requests.RequestException as error:
            raise RegistryUnavailable(f"no answer from the schema registry at {self.url}: {error}") from error
        if answer.status_code == 404 and _is_registry_error(answer):
            raise SchemaError(f"the registry at {self.url} does not know {unknown}")
        if answer.status_code == 404 or answer.status_code >= 500 or answer.status_code == 429:
            raise RegistryUnavailable(f"the schema registry at {self.url} answered {answer.status_code} to {path}")
        if answer.status_code >= 400:
            raise SchemaError(f"the registry refused {unknown} ({answer.status_code}): {answer.text[:500]}")
        try:
            return answer.json()
        except ValueError as error:
            raise RegistryUnavailable(f"what answers at {self.url} is no schema registry: {error}") from error


def _is_registry_error(answer: requests.Response) -> bool:
    """Tell a registry's own 'unknown' from the 404 of something else that answers on that port or path."""
    try:
        body = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and "error_code" in body


def _parse(text: str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SchemaError(f"{what} is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("type") != "record":
        raise SchemaError(f"{what} is no Avro record")
    return document


class MemoryRegistry:
    """A registry in memory; knows all records of this version from the start, as ids 1 to n."""

    def __init__(self) -> None:
        self.available = True
        self._texts: list[tuple[str, str]] = []
        for name in schemas.names():
            self.register(name, schemas.canonical_json(name))

    def register(self, name: str, text: str) -> int:
        if (name, text) not in self._texts:
            self._texts.append((name, text))
        return self._texts.index((name, text)) + 1

    def schema_by_id(self, schema_id: int) -> Mapping[str, Any]:
        self._answer()
        if not 1 <= schema_id <= len(self._texts):
            raise SchemaError(f"the registry does not know schema id {schema_id}")
        return _parse(self._texts[schema_id - 1][1], f"schema id {schema_id}")

    def id_of(self, name: str) -> int:
        self._answer()
        entry = (name, schemas.canonical_json(name))
        if entry not in self._texts:
            raise SchemaError(f"the registry does not know the schema of {name}")
        return self._texts.index(entry) + 1

    def _answer(self) -> None:
        if not self.available:
            raise RegistryUnavailable("the schema registry in memory was switched off")


def register_all(settings: Settings) -> dict[str, int]:
    """Register every record's canonical schema and return the ids by name; may be run again, ids stay.

    Raises:
        SchemaError: an edited schema breaks a rule; names field and rule, and nothing was registered.
        RegistryUnavailable: the registry does not answer.
    """
    problems = check(settings)
    if problems:
        raise SchemaError("; ".join(str(problem) for problem in problems))
    registry = HttpRegistry(settings.registry_url)
    ids = {}
    for name in schemas.names():
        ids[name] = registry.register(name, schemas.canonical_json(name))
        registry.require_full_compatibility(name)
    return ids


def check(settings: Settings, directory: Path | None = None) -> list[Problem]:
    """Tell what in the schemas would break a rule, or a reader of anything that is registered.

    Args:
        directory: where the edited `.avsc` files are; None for those of this version.
    """
    registry = HttpRegistry(settings.registry_url)
    known = registry.subjects()
    problems: list[Problem] = []
    for name in schemas.names():
        path = (directory or schemas.directory()) / f"{name}.avsc"
        if not path.is_file():
            problems.append(Problem(name, "", "a record stays", f"{path} is missing"))
            continue
        new = schemas.read(path)
        problems += lint(new, name)
        versions = registry.versions(name) if name in known else {}
        broken = [problem for old in versions.values() for problem in check_local(old, new)]
        problems += dict.fromkeys(problem for problem in broken if problem not in problems)
    return problems
