"""`flow`: the commands, each in a module of its own that is imported only when its command is given."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from flowapp.errors import BrokerUnavailable, FlowError, RegistryUnavailable

# A module has add_parser(subparsers), which adds its commands and names run(args) for them, and returns an exit code.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("flowapp.embedded.command", "run broker, registry, worker and edge, and show packets; Ctrl-C stops all"),
    "init": ("flowapp.namespace_command", "create the namespace's topics and register schemas; may be run again"),
    "status": ("flowapp.status", "show each part of the stack, lag per agent and partition, and rates"),
    "ingest": ("flowapp.edge.command", "run the edge: feeds to raw topics"),
    "watch": ("flowapp.watch", "show packets as they come"),
    "state": ("flowapp.state_command", "show, accept or rebuild a worker's state"),
    "schemas": ("flowapp.records.command", "register, list or check record schemas"),
    "bench": ("flowapp.bench.command", "measure this machine"),
    "reset": ("flowapp.namespace_command", "delete a namespace: topics, offsets, state"),
    "settings": ("flowapp.settings_command", "show every setting: value, default, what is allowed, meaning"),
}

EXIT_FAILED = 1
EXIT_REFUSED = 2  # starting again does not mend it; the supervisor relies on this
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; an error of ours is one line on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        args = parser_for(words).parse_args(words)
        return int(args.run(args) or 0)
    except (BrokerUnavailable, RegistryUnavailable) as error:
        return _complain(error, EXIT_FAILED)
    except FlowError as error:
        return _complain(error, EXIT_REFUSED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; nothing is left to flush into a closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser_for(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser, complete for the command that `words` name; the others have only their names."""
    parser = argparse.ArgumentParser(prog="flow", description="Options flow in real time.")
    parser.add_argument("--version", action="version", version=importlib.metadata.version("flowapp"))
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in words if word in COMMANDS), None)
    module = COMMANDS[asked][0] if asked else None
    if module is not None:
        importlib.import_module(module).add_parser(subparsers)
    for name, (home, about) in COMMANDS.items():
        if home != module:
            subparsers.add_parser(name, help=about)
    return parser


def _complain(error: FlowError, code: int) -> int:
    print(f"flow: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
