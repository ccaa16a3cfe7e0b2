"""Become the program named on the command line, and die with the parent: `launch.py PARENT_PID PROGRAM ARGUMENT...`.

A program of its own, because code between fork and exec of a process with threads is not safe. Where the operating
system cannot tie a child to its parent (macOS), a stack that was killed is cleaned up by the next start.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then replace it."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    os.execvpe(command[0], command, os.environ)


if __name__ == "__main__":
    main()
