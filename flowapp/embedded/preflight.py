"""Check that this machine can build and run the stack; runs on every Python since 3.6 and says what is missing."""

import os
import shutil
import sys

LEAST_PYTHON = (3, 11)
DISK_MEBIBYTES = 3000
MEMORY_MEBIBYTES = 2500
MEBIBYTE = 1 << 20


def problems():
    # type: () -> list[str]
    """Return what is missing, a sentence each."""
    found = []
    if sys.version_info < LEAST_PYTHON:
        found.append(
            f"Python was {sys.version_info[0]}.{sys.version_info[1]} at {sys.executable}; needed: 3.11 or later. "
            "Install one and name it: make up PYTHON=python3.12"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        found.append(f"{sys.executable} has no venv module; install it (Debian, Ubuntu: apt-get install python3-venv)")
    if shutil.which("git") is None:
        found.append("git was not found; install it (Debian, Ubuntu: apt-get install git)")
    if not sys.platform.startswith(("linux", "darwin")):
        found.append(f"the platform was {sys.platform}; needed: Linux or macOS (on Windows: WSL)")
    free = shutil.disk_usage(os.getcwd()).free // MEBIBYTE
    if free < DISK_MEBIBYTES:
        found.append(f"free disk space was {free} MB; needed: {DISK_MEBIBYTES} MB for packages, components and a first day of data")
    return found


def warnings():
    # type: () -> list[str]
    """Return what may become a problem."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MEBIBYTE
    except (ValueError, OSError, AttributeError):
        return []
    if memory < MEMORY_MEBIBYTES:
        return [f"memory was {memory} MB; the whole stack wants {MEMORY_MEBIBYTES} MB"]
    return []


def main():
    # type: () -> int
    """Print problems and warnings; 1 if there is a problem."""
    for text in warnings():
        sys.stderr.write(f"note: {text}\n")
    wrong = problems()
    for text in wrong:
        sys.stderr.write(f"missing: {text}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
