"""Log lines: one JSON object a line in files, one short line for a person in the terminal."""

from __future__ import annotations

import json
import logging
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

MESSAGE_CHARS = 240
LEVELS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
ALIASES = {"WARN": "WARNING", "FATAL": "CRITICAL", "SEVERE": "ERROR"}
LEVEL_WORD = re.compile(r"\b(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|SEVERE|FATAL|CRITICAL)\b")
# What a logging library says about itself and the machine, not about the event.
NOISE = frozenset({"sequence", "loggerClassName", "threadId", "mdc", "ndc", "hostName", "processName", "processId"})
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Record:
    """One log line of one service."""

    level: str
    service: str
    msg: str
    ts: str
    context: dict[str, Any] = field(default_factory=dict)

    @property
    def severity(self) -> int:
        """The level as a number of Python's scale."""
        return LEVELS.get(self.level, LEVELS["INFO"])

    def to_json(self) -> str:
        """Write the record as one line."""
        fields = {"level": self.level, "service": self.service, "msg": self.msg, "ts": self.ts, "context": self.context}
        return json.dumps(fields, ensure_ascii=False, default=str)

    def to_text(self) -> str:
        """Write the record for a person: local time, service, level unless INFO, message."""
        level = "" if self.level == "INFO" else f"{self.level}: "
        message = self.msg.strip()
        lines = message.splitlines() or [""]
        text = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1].strip()}"
        return f"{_clock(self.ts)} {self.service:<9} {level}{text[:MESSAGE_CHARS]}"


def now() -> str:
    """Return the wall clock as ISO text in UTC, ms."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def parse(line: str, service: str) -> Record:
    """Understand a line of a child: a JSON object under the usual names, else text as it is."""
    text = ESCAPES.sub("", line.rstrip("\r\n"))
    if text.startswith("{"):
        try:
            fields = json.loads(text)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            return _from_fields(fields, service)
    found = LEVEL_WORD.search(text[:120])
    return Record(_level(found.group() if found else "INFO"), service, text, now())


def _from_fields(fields: dict[str, Any], service: str) -> Record:
    level = _level(str(_take(fields, "INFO", "level", "severity", "levelname")))
    message = str(_take(fields, "", "msg", "message", "event"))
    moment = str(_take(fields, now(), "ts", "timestamp", "time"))
    name = str(_take(fields, service, "service"))
    context = _take(fields, {}, "context")
    merged = {**(context if isinstance(context, dict) else {"context": context}), **fields}
    return Record(level, name, message, moment, {key: value for key, value in merged.items() if key not in NOISE})


def _take(fields: dict[str, Any], otherwise: Any, *names: str) -> Any:
    values = [fields.pop(name) for name in names if name in fields]
    return next((value for value in values if value is not None), otherwise)


def _level(word: str) -> str:
    upper = word.upper()
    return ALIASES.get(upper, upper)


def _clock(moment: str) -> str:
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return "--:--:--"


class JsonFormatter(logging.Formatter):
    """Formats a record of Python's logging as one JSON object; `extra={"context": {...}}` becomes its context."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        context = {"logger": record.name, **getattr(record, "context", {})}
        if record.exc_info:
            context["exception"] = self.formatException(record.exc_info)
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return Record(_level(record.levelname), self.service, record.getMessage(), moment, context).to_json()


def configure(service: str, level: int = logging.INFO, out: TextIO | None = None) -> None:
    """Make this process log one JSON object a line, to standard error unless told."""
    handler = logging.StreamHandler(out or sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
