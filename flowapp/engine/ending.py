"""How a process of the engine ends when going on would lose or change something."""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

from flowapp.errors import FlowError, NamespaceError, SettingError, StackError, StateError

EXIT_FAILED = 1
EXIT_REFUSED = 2  # starting again does not mend it; a supervisor relies on this
REFUSALS = (StateError, NamespaceError, SettingError, StackError)

log = logging.getLogger("flowapp.engine")


def end_process(reason: str | BaseException, code: int | None = None) -> NoReturn:
    """Log `reason` in one line and end the process at once: no checkpoint, no commit, no clean-up.

    Anything milder lets the stream framework restart an agent, or acknowledge what failed.
    """
    if code is None:
        code = EXIT_REFUSED if isinstance(reason, REFUSALS) else EXIT_FAILED
    unexpected = isinstance(reason, BaseException) and not isinstance(reason, FlowError)
    text = f"{type(reason).__name__}: {reason}" if unexpected else str(reason)
    log.critical(text, exc_info=reason if isinstance(reason, BaseException) and unexpected else None)
    for handler in [*log.handlers, *logging.getLogger().handlers]:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
