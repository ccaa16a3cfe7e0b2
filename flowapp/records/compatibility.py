"""Rules that let a record change without breaking a reader of any earlier or later version."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DOCUMENTED = "every field is documented"
NO_ENUM = "no enums: an enum cannot grow"
NO_MAP = "no maps"
LONG = "every integer is long"
DOUBLE = "every real is double"
FLAG = "every flag is a nullable boolean"
SHAPE = "a type is long, double, string, bytes, boolean, an array of one of them, or such a type or null"
NULL_FIRST = "a nullable type puts null first and defaults to null"
ARRAY_DEFAULT = "an array defaults to []"
NO_RENAME = "no rename: nothing is called by an alias"
COMES_WITH_DEFAULT = "only a field with a default comes"
GOES_WITH_DEFAULT = "only a field with a default goes"
TYPE_STAYS = "a type never widens or changes"
DEFAULT_STAYS = "a default never changes"
NAME_STAYS = "a record keeps its name"

_PLAIN = ("long", "double", "string", "bytes", "boolean")
_INSTEAD = {"int": LONG, "float": DOUBLE, "enum": NO_ENUM, "map": NO_MAP}
_ABSENT = object()


@dataclass(frozen=True)
class Problem:
    """What stands against a schema: the record, the field (blank for the record itself), the rule, and the finding."""

    record: str
    field: str
    rule: str
    found: str

    def __str__(self) -> str:
        place = f"{self.record}.{self.field}" if self.field else self.record
        return f"{place}: {self.found} (rule: {self.rule})"


def lint(document: Mapping[str, Any], name: str) -> list[Problem]:
    """Return which rules a schema breaks by itself."""
    problems = []
    if document.get("type") != "record" or document.get("name") != name:
        found = f"was {document.get('type')} {document.get('name')}"
        problems.append(Problem(name, "", NAME_STAYS, found))
    for field in document.get("fields", []):
        problems += [Problem(name, field.get("name", "?"), rule, found) for rule, found in _lint_field(field)]
    return problems


def _lint_field(field: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not str(field.get("doc", "")).strip():
        yield DOCUMENTED, "has no doc"
    if "aliases" in field:
        yield NO_RENAME, f"has aliases {json.dumps(field['aliases'])}"
    avro_type, default = field.get("type"), field.get("default", _ABSENT)
    if isinstance(avro_type, list):
        if avro_type[:1] != ["null"] or len(avro_type) != 2 or default is not None:
            yield NULL_FIRST, f"type was {_text(avro_type)}, default {_text(default)}"
    elif avro_type == "boolean":
        yield FLAG, 'type was "boolean"'
    elif isinstance(avro_type, dict) and avro_type.get("type") == "array" and default != []:
        yield ARRAY_DEFAULT, f"default was {_text(default)}"
    for part in avro_type if isinstance(avro_type, list) else [avro_type]:
        yield from _lint_type(part)


def _lint_type(avro_type: Any) -> Iterator[tuple[str, str]]:
    kind = avro_type.get("type") if isinstance(avro_type, dict) else avro_type
    if kind == "array":
        yield from _lint_type(avro_type.get("items"))
    elif isinstance(avro_type, dict) or kind not in (*_PLAIN, "null"):
        yield _INSTEAD.get(str(kind), SHAPE), f"type was {_text(avro_type)}"


def check_local(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Problem]:
    """Return what breaks between two versions of a record, in either direction; asks nobody."""
    record = str(new.get("name"))
    problems = []
    if old.get("name") != new.get("name"):
        problems.append(Problem(record, "", NAME_STAYS, f"was {old.get('name')}"))
    before, after = _by_name(old), _by_name(new)
    for name, field in before.items():
        if name not in after and "default" not in field:
            problems.append(Problem(record, name, GOES_WITH_DEFAULT, "was taken out and has no default"))
    for name, field in after.items():
        if name not in before:
            if "default" not in field:
                problems.append(Problem(record, name, COMES_WITH_DEFAULT, "was added without a default"))
            continue
        problems += [Problem(record, name, rule, found) for rule, found in _changes(before[name], field)]
    return problems


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if old["type"] != new["type"]:
        yield TYPE_STAYS, f"type was {_text(old['type'])}, is {_text(new['type'])}"
    elif old.get("default", _ABSENT) != new.get("default", _ABSENT):
        yield DEFAULT_STAYS, f"default was {_text(old.get('default', _ABSENT))}, is {_text(new.get('default', _ABSENT))}"


def _by_name(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {field["name"]: field for field in document.get("fields", [])}


def _text(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)
