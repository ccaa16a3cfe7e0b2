"""`flow schemas`: register, list and check record schemas."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flowapp.errors import SchemaError
from flowapp.records import schemas
from flowapp.records.registry import HttpRegistry, check, register_all
from flowapp.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Add `schemas` to the commands of `flow`."""
    parser = subparsers.add_parser("schemas", help="register, list or check record schemas")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("register", help="register every record's schema; may be run again")
    actions.add_parser("list", help="show every record: fields, registered id and versions")
    checking = actions.add_parser("check", help="tell which field of an edited schema breaks which rule")
    checking.add_argument("--schemas", type=Path, metavar="DIR", help="directory of .avsc files (default: this version's)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run `flow schemas <action>`; 1 when something is wrong with the schemas."""
    settings = Settings.load()
    if args.action == "register":
        return _register(settings)
    if args.action == "list":
        return _list(settings)
    return _check(settings, args.schemas)


def _register(settings: Settings) -> int:
    for name, schema_id in register_all(settings).items():
        print(f"{name:<16} id {schema_id}")
    return 0


def _list(settings: Settings) -> int:
    registry = HttpRegistry(settings.registry_url)
    known = registry.subjects()
    for name in schemas.names():
        versions = len(registry.versions(name)) if name in known else 0
        print(f"{name:<16} {len(schemas.frame_schema(name)):>3} fields  {versions} versions  {_own_id(registry, name)}")
    return 0


def _own_id(registry: HttpRegistry, name: str) -> str:
    try:
        return f"id {registry.id_of(name)}"
    except SchemaError:
        return "not registered: flow schemas register"


def _check(settings: Settings, directory: Path | None) -> int:
    problems = check(settings, directory)
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{len(schemas.names())} schemas agree with everything registered at {settings.registry_url}")
    return 1 if problems else 0
