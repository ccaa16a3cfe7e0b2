"""`flow init` and `flow reset`: make a namespace, delete a namespace."""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import Any

from flowapp import topic_admin
from flowapp.embedded import runfile
from flowapp.embedded.command import initialise
from flowapp.embedded.locks import is_held
from flowapp.errors import NamespaceError, SettingError
from flowapp.settings import NAMESPACE_PATTERN, Settings


def add_parser(subparsers: Any) -> None:
    """Add `init` and `reset` to the commands of `flow`."""
    init = subparsers.add_parser("init", help="create the namespace's topics and register schemas; may be run again")
    init.set_defaults(run=run_init)
    reset = subparsers.add_parser("reset", help="delete a namespace: topics, offsets, state")
    reset.add_argument("namespace", metavar="NAMESPACE", help="which one, in full")
    reset.add_argument("--yes", action="store_true", help="do not ask")
    reset.set_defaults(run=run_reset)


def run_init(args: argparse.Namespace) -> int:
    """Create topics and register schemas."""
    initialise(Settings.load(), print)
    return 0


def run_reset(args: argparse.Namespace) -> int:
    """Delete a namespace after asking."""
    if not NAMESPACE_PATTERN.fullmatch(args.namespace):
        raise SettingError(f"NAMESPACE was {args.namespace!r}; allowed: lower-case letters, digits and _")
    settings = Settings.load(flow_namespace=args.namespace)
    refuse_if_used(settings)
    if not args.yes and not _confirmed(settings):
        print("nothing was deleted", file=sys.stderr)
        return 1
    deleted = topic_admin.delete(settings)
    shutil.rmtree(settings.home / settings.namespace, ignore_errors=True)
    print(f"namespace {settings.namespace}: {len(deleted)} topics, its offsets and {settings.home / settings.namespace} deleted")
    return 0


def refuse_if_used(settings: Settings) -> None:
    """Check that nobody works in the namespace.

    Raises:
        NamespaceError: names who does.
    """
    name = settings.namespace
    members = topic_admin.active_members(topic_admin.admin(settings), name)
    if members:
        raise NamespaceError(f"namespace {name} is in use by {len(members)} worker(s): {', '.join(members)}; stop them first")
    locks = [runfile.path_of(settings.home, runfile.services_scope(name), "lock"), *(settings.home / name).rglob("*.lock")]
    held = [str(path) for path in locks if is_held(path)]
    if held:
        raise NamespaceError(f"namespace {name} is in use: {', '.join(held)} held by a running process; stop it first")


def _confirmed(settings: Settings) -> bool:
    print(f"This deletes every topic of namespace {settings.namespace} on {settings.bootstrap}, its offsets and its local state.")
    try:
        return input(f"Type {settings.namespace} to go on: ").strip() == settings.namespace
    except EOFError:
        return False
