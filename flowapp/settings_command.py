"""`flow settings`: every variable with the value in force."""

from __future__ import annotations

import argparse
import json
from typing import Any

from flowapp.settings import Settings, variable_table


def add_parser(subparsers: Any) -> None:
    """Add `settings` to the commands of `flow`."""
    parser = subparsers.add_parser("settings", help="show every setting: value, default, what is allowed, meaning")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the values in force as one JSON object")
    form.add_argument("--example", action="store_true", help="the text of .env.example")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print them."""
    if args.example:
        print(example_text(), end="")
        return 0
    values = Settings.load().environment(complete=True)
    if args.json:
        print(json.dumps(values, indent=2))
        return 0
    for name, default, allowed, about in variable_table():
        changed = "" if values[name] == default else f"   (default: {default or 'blank'})"
        print(f"{name}={values[name]}{changed}\n    {about}; {allowed}")
    return 0


def example_text() -> str:
    """Return `.env.example`: every variable, commented out, with its default."""
    lines = [
        "# Copy to .env and take the # off what you change; the environment wins over .env.",
        "# Written by: flow settings --example > .env.example",
    ]
    for name, default, allowed, about in variable_table():
        lines += ["", f"# {about}", f"# allowed: {allowed}", f"#{name}={default}"]
    return "\n".join(lines) + "\n"
