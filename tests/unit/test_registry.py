"""Registries, the rules of change, and `flow schemas`."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flowapp import cli
from flowapp.errors import RegistryUnavailable, SchemaError
from flowapp.records import compatibility as rules
from flowapp.records import schemas
from flowapp.records.registry import HttpRegistry, MemoryRegistry, check, register_all
from flowapp.settings import Settings

FIELD = {"name": "colour", "type": ["null", "string"], "default": None, "doc": "colour of the tick"}


class FakeRegistry(ThreadingHTTPServer):
    """The part of Confluent's API that is used, under a path, in memory; `fault` answers instead when it is set."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.texts: list[tuple[str, str]] = []
        self.config: dict[str, str] = {}
        self.requests: list[str] = []
        self.fault: tuple[int, str] | None = None
        self.url = f"http://127.0.0.1:{self.server_port}/apis/ccompat/v7"

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        if self.fault is not None:
            return self.fault
        match [method, *path.removeprefix("/apis/ccompat/v7/").split("/")]:
            case ["GET", "subjects"]:
                return 200, sorted({name for name, _ in self.texts})
            case ["GET", "schemas", "ids", number] if 1 <= int(number) <= len(self.texts):
                return 200, {"schema": self.texts[int(number) - 1][1]}
            case ["POST", "subjects", name, "versions"]:
                if (name, body["schema"]) not in self.texts:
                    self.texts.append((name, body["schema"]))
                return 200, {"id": self.texts.index((name, body["schema"])) + 1}
            case ["POST", "subjects", name] if (name, body["schema"]) in self.texts:
                return 200, {"id": self.texts.index((name, body["schema"])) + 1}
            case ["GET", "subjects", name, "versions"]:
                return 200, list(range(1, 1 + len([text for subject, text in self.texts if subject == name])))
            case ["GET", "subjects", name, "versions", version]:
                return 200, {"schema": [text for subject, text in self.texts if subject == name][int(version) - 1]}
            case ["PUT", "config", name]:
                self.config[name] = body["compatibility"]
                return 200, body
        return 404, {"error_code": 40403, "message": "not found"}


class _Handler(BaseHTTPRequestHandler):
    server: FakeRegistry

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        status, answer = self.server.answer(self.command, self.path, body)
        payload = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent."""


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    server = FakeRegistry()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(fake: FakeRegistry) -> Settings:
    return Settings.load({"SCHEMA_REGISTRY_URL": fake.url}, Path("/nonexistent/.env"))


def edited(name: str, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    document = copy.deepcopy(schemas.schema(name))
    change(document)
    return document


def field_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(field for field in document["fields"] if field["name"] == name)
    return found


def test_an_edit_within_the_rules_breaks_nothing_in_either_direction() -> None:
    old = schemas.schema("Run")
    new = edited("Run", lambda d: d["fields"].append(FIELD))
    new["fields"] = [field for field in reversed(new["fields"]) if field["name"] != "detail"]
    assert rules.check_local(old, new) == []
    assert rules.check_local(new, old) == []
    assert rules.lint(new, "Run") == []


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        (lambda d: d["fields"].append({**FIELD, "type": "string"} | {"default": "red"}), None, None),
        (lambda d: d["fields"].append({"name": "colour", "type": "string", "doc": "d"}), "colour", rules.COMES_WITH_DEFAULT),
        (lambda d: d["fields"].remove(field_of(d, "run")), "run", rules.GOES_WITH_DEFAULT),
        (lambda d: field_of(d, "w").update(type="double"), "w", rules.TYPE_STAYS),
        (lambda d: field_of(d, "feed").update(type=["null", "string"], default=None), "feed", rules.TYPE_STAYS),
        (lambda d: field_of(d, "seq").update(default=0), "seq", rules.DEFAULT_STAYS),
        (lambda d: d.update(name="Tock"), "", rules.NAME_STAYS),
    ],
)
def test_a_change_is_refused_with_the_field_and_the_rule(
    change: Callable[[dict[str, Any]], None], field: str | None, rule: str | None
) -> None:
    problems = rules.check_local(schemas.schema("Tick"), edited("Tick", change))
    assert [(problem.field, problem.rule) for problem in problems] == ([] if rule is None else [(field, rule)])


def test_a_rename_is_a_field_that_goes_and_one_that_comes() -> None:
    new = edited("Tick", lambda d: field_of(d, "run").update(name="edge_run", aliases=["run"]))
    found = {(problem.field, problem.rule) for problem in rules.check_local(schemas.schema("Tick"), new) + rules.lint(new, "Tick")}
    assert found == {("run", rules.GOES_WITH_DEFAULT), ("edge_run", rules.COMES_WITH_DEFAULT), ("edge_run", rules.NO_RENAME)}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"type": "int"}, rules.LONG),
        ({"type": ["null", "int"]}, rules.LONG),
        ({"type": ["null", "float"]}, rules.DOUBLE),
        ({"type": "boolean"}, rules.FLAG),
        ({"type": {"type": "enum", "name": "E", "symbols": ["A"]}}, rules.NO_ENUM),
        ({"type": ["null", {"type": "enum", "name": "E", "symbols": ["A"]}]}, rules.NO_ENUM),
        ({"type": {"type": "map", "values": "long"}}, rules.NO_MAP),
        ({"type": {"type": "array", "items": "int"}, "default": []}, rules.LONG),
        ({"type": {"type": "array", "items": "string"}}, rules.ARRAY_DEFAULT),
        ({"type": ["string", "null"]}, rules.NULL_FIRST),
        ({"type": ["null", "string"], "default": "x"}, rules.NULL_FIRST),
        ({"type": {"type": "long", "logicalType": "timestamp-millis"}}, rules.SHAPE),
        ({"doc": " "}, rules.DOCUMENTED),
        ({"aliases": ["color"]}, rules.NO_RENAME),
    ],
)
def test_a_new_field_must_keep_every_rule_of_shape(change: dict[str, Any], rule: str) -> None:
    problems = rules.lint(edited("Tick", lambda d: d["fields"].append({**FIELD, **change})), "Tick")
    assert [(problem.record, problem.field, problem.rule) for problem in problems] == [("Tick", "colour", rule)]


def test_registering_twice_gives_the_same_ids_and_sets_full_compatibility_per_subject(settings: Settings, fake: FakeRegistry) -> None:
    ids = register_all(settings)
    assert register_all(settings) == ids
    assert tuple(ids) == schemas.names()
    assert fake.texts == [(name, schemas.canonical_json(name)) for name in schemas.names()]
    assert fake.config == dict.fromkeys(schemas.names(), "FULL_TRANSITIVE")


def test_an_incompatible_version_is_refused_before_anything_is_registered(settings: Settings, fake: FakeRegistry) -> None:
    for change in (lambda d: d["fields"].append(FIELD), lambda d: field_of(d, "w").update(type="double")):
        fake.texts.append(("Tick", schemas.canonical(edited("Tick", change))))
    with pytest.raises(SchemaError, match=r'^Tick\.w: type was "double", is "long" \(rule: a type never widens or changes\)$'):
        register_all(settings)
    assert len(fake.texts) == 2


def test_the_whole_history_of_a_subject_is_checked(settings: Settings, fake: FakeRegistry) -> None:
    older = edited("Tick", lambda d: d["fields"].append({"name": "colour", "type": "string", "doc": "d"}))
    fake.texts += [("Tick", schemas.canonical(older)), ("Tick", schemas.canonical_json("Tick"))]
    assert [(problem.field, problem.rule) for problem in check(settings)] == [("colour", rules.GOES_WITH_DEFAULT)]


def test_an_id_is_asked_once_and_its_path_in_the_url_is_kept(fake: FakeRegistry, settings: Settings) -> None:
    ids = register_all(settings)
    registry = HttpRegistry(fake.url + "/")
    fake.requests.clear()
    for _ in range(2):
        assert registry.id_of("Tick") == ids["Tick"]
        assert registry.schema_by_id(ids["Tick"]) == schemas.schema("Tick")
    assert fake.requests == ["POST /apis/ccompat/v7/subjects/Tick", f"GET /apis/ccompat/v7/schemas/ids/{ids['Tick']}"]
    registry.close()


def test_what_a_registry_does_not_know_is_a_schema_error(fake: FakeRegistry) -> None:
    registry = HttpRegistry(fake.url)
    with pytest.raises(SchemaError, match="does not know schema id 77"):
        registry.schema_by_id(77)
    with pytest.raises(SchemaError, match="schema id was 4294967295; allowed: 0 to 2147483647"):
        registry.schema_by_id(2**32 - 1)
    with pytest.raises(SchemaError, match="does not know the schema of Tick"):
        registry.id_of("Tick")
    registry.close()


@pytest.mark.parametrize("fault", [(500, '{"error_code": 50001}'), (503, "starting"), (404, "no such page"), (429, "{}"), (200, "<html>")])
def test_an_answer_that_is_no_answer_means_that_the_registry_is_not_available(fake: FakeRegistry, fault: tuple[int, str]) -> None:
    registry = HttpRegistry(fake.url)
    fake.fault = fault
    with pytest.raises(RegistryUnavailable, match=fake.url):
        registry.schema_by_id(1)
    registry.close()


def test_nobody_listening_means_that_the_registry_is_not_available() -> None:
    registry = HttpRegistry("http://127.0.0.1:9/apis/ccompat/v7")
    with pytest.raises(RegistryUnavailable, match=r"no answer from the schema registry at http://127\.0\.0\.1:9/apis/ccompat/v7"):
        registry.id_of("Tick")
    registry.close()


def test_a_refusal_of_the_registry_is_passed_on_in_its_own_words(fake: FakeRegistry) -> None:
    registry = HttpRegistry(fake.url)
    fake.fault = (409, '{"error_code": 409, "message": "incompatible"}')
    with pytest.raises(SchemaError, match=r"refused subject Tick \(409\): .*incompatible"):
        registry.register("Tick", "{}")
    registry.close()


@pytest.mark.parametrize("text", ["no json", '"long"', '{"type": "enum"}'])
def test_a_foreign_schema_that_is_no_record_is_a_schema_error(fake: FakeRegistry, text: str) -> None:
    fake.texts.append(("other", text))
    registry = HttpRegistry(fake.url)
    with pytest.raises(SchemaError, match="schema id 1 is no"):
        registry.schema_by_id(1)
    registry.close()


def test_the_registry_in_memory_answers_like_the_real_one() -> None:
    registry = MemoryRegistry()
    ids = {name: registry.id_of(name) for name in schemas.names()}
    assert sorted(ids.values()) == list(range(1, len(ids) + 1))
    assert all(registry.schema_by_id(ids[name]) == schemas.schema(name) for name in ids)
    with pytest.raises(SchemaError, match="does not know schema id 99"):
        registry.schema_by_id(99)
    with pytest.raises(SchemaError, match="record was 'Nothing'"):
        registry.id_of("Nothing")
    registry.available = False
    with pytest.raises(RegistryUnavailable):
        registry.schema_by_id(1)


@pytest.fixture
def command(fake: FakeRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", fake.url)
    return lambda *words: cli.main(["schemas", *words])


def test_the_command_registers_lists_and_checks(
    command: Callable[..., int], fake: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("list") == 0
    assert "Tick               4 fields  0 versions  not registered: flow schemas register" in capsys.readouterr().out
    assert command("register") == 0
    assert capsys.readouterr().out.splitlines()[1] == "Tick             id 2"
    assert command("list") == 0
    assert "Tick               4 fields  1 versions  id 2" in capsys.readouterr().out
    assert command("check") == 0
    assert capsys.readouterr().out == f"16 schemas agree with everything registered at {fake.url}\n"


def test_the_command_names_field_and_rule_of_an_edited_file_one_line_each(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("register") == 0
    capsys.readouterr()
    folder = tmp_path / "edited"
    folder.mkdir()
    for name in schemas.names():
        (folder / f"{name}.avsc").write_text(schemas.canonical_json(name))
    new = edited("Tick", lambda d: field_of(d, "w").update(type="int"))
    field_of(new, "seq").pop("doc")
    (folder / "Tick.avsc").write_text(json.dumps(new))
    (folder / "Alert.avsc").unlink()
    assert command("check", "--schemas", str(folder)) == 1
    assert capsys.readouterr().out.splitlines() == [
        'Tick.w: type was "int" (rule: every integer is long)',
        "Tick.seq: has no doc (rule: every field is documented)",
        'Tick.w: type was "long", is "int" (rule: a type never widens or changes)',
        f"Alert: {folder / 'Alert.avsc'} is missing (rule: a record stays)",
    ]


def test_the_command_says_which_file_is_no_schema(command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "OptionPrint.avsc").write_text("{")
    assert command("check", "--schemas", str(tmp_path)) == 2
    assert f"flow: {tmp_path / 'OptionPrint.avsc'} cannot be read as a record schema" in capsys.readouterr().err
