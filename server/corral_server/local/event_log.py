"""Structured log of local mode: one line per event, for people on a terminal, JSON on a pipe.

A JSON line is ``{"ts": RFC 3339, "level", "event", ["model"], ...}``. The events of a Model in their usual order:
``demand`` (requests are pending), ``plan`` (the decision and its reason), ``started`` (the runner process runs), the
runner's own ``listening``, ``loading`` and ``loaded``, ``ready`` (requests are routed to it), ``stopping``, ``exited``.
The events of a source that is pulled: ``pulling``, ``pulled``, ``pull_failed`` and ``poll_failed``. ``field_unused``
names a field of a Model that has no effect here, and what is used in its place.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TextIO

from corral_core.base.json_fields import JsonObject
from corral_core.base.received_json import parse_received_object
from corral_core.base.timestamps import format_micro_time, parse_timestamp

MAX_LINE_BYTES = 64 * 1024
"""Of a runner's event: more than ``system.lines`` keeps of a line."""
_MAX_TIME = 253_402_300_800.0
"""Unix seconds of the year 10000, which dates cannot have."""
_HEAD = frozenset({"ts", "level", "event", "model"})


class EventLog:
    """Writes events to one stream. Write errors are ignored: a closed pipe must not stop serving.

    On a terminal, ``show_status`` keeps a line below the events.
    """

    def __init__(self, stream: TextIO, *, human: bool, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._format = _terminal_line if human else _json_line
        self._status = ""
        self.has_status_line = human and stream.isatty()

    def event(self, name: str, model: str = "", /, **fields: object) -> None:
        """Log an event; ``model`` is the Model that it concerns."""
        self.write(time.time(), "info", name, model=model, fields=fields)

    def debug(self, name: str, model: str = "", /, **fields: object) -> None:
        self.write(time.time(), "debug", name, model=model, fields=fields)

    def problem(self, name: str, model: str = "", /, **fields: object) -> None:
        self.write(time.time(), "error", name, model=model, fields=fields)

    def relay(self, model: str, text: str) -> None:
        """Log one line of a runner's output: its event with its own time, or other text at debug level."""
        try:
            line: JsonObject = parse_received_object(text.encode(), limit=MAX_LINE_BYTES)
        except ValueError:
            line = {}
        if not isinstance(line.get("event"), str):
            self.debug("output", model, text=text)
            return
        fields = {str(name): value for name, value in line.items() if name not in _HEAD}
        level = str(line.get("level", "info")).lower()
        self.write(_event_time(line.get("ts")), level, str(line["event"]), model=model, fields=fields)

    def write(self, at: float, level: str, name: str, *, model: str, fields: Mapping[str, object]) -> None:
        """Write one line. ``at`` is Unix seconds."""
        if level == "debug" and not self._verbose:
            return
        self._write(self._format(at, level, name, model=model, fields=fields) + "\n")

    def show_status(self, text: str) -> None:
        """Show the text below the events until it is replaced; empty removes it. No effect without a terminal."""
        if self.has_status_line:
            self._status, before = _printable(text), self._status
            if self._status or before:
                self._write("")

    def _write(self, line: str) -> None:
        """Write a line above the status line."""
        try:
            if self.has_status_line:
                width = shutil.get_terminal_size().columns - 1
                line = f"\r\x1b[K{line}{self._status[:width]}"
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            return


class LoggingBridge(logging.Handler):
    """Forwards the log records of libraries to the event log."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        self._log.write(record.created, record.levelname.lower(), "log", model="", fields=fields)


def terminal_text(text: str) -> str:
    """Return a JSON line of the log as it is on a terminal; other text as it is."""
    try:
        line: JsonObject = parse_received_object(text.encode(), limit=MAX_LINE_BYTES)
    except ValueError:
        line = {}
    if not isinstance(line.get("event"), str):
        return "".join(character if character.isprintable() else "?" for character in text)
    fields = {str(name): value for name, value in line.items() if name not in _HEAD}
    model, level = str(line.get("model", "")), str(line.get("level", "info")).lower()
    return _terminal_line(_event_time(line.get("ts")), level, str(line["event"]), model=model, fields=fields)


def _event_time(value: object) -> float:
    """Return the time of a runner's event (RFC 3339 or Unix seconds); the current time if it is neither."""
    at = parse_timestamp(value) if isinstance(value, str) else value
    if isinstance(at, int | float) and not isinstance(at, bool) and 0 <= at < _MAX_TIME:
        return float(at)
    return time.time()


def _json_line(at: float, level: str, name: str, *, model: str, fields: Mapping[str, object]) -> str:
    head: dict[str, object] = {"ts": format_micro_time(at), "level": level, "event": name}
    line = head | ({"model": model} if model else {}) | dict(fields)
    return json.dumps(line, ensure_ascii=False, default=str)


def _terminal_line(at: float, level: str, name: str, *, model: str, fields: Mapping[str, object]) -> str:
    clock = datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    mark = "" if level in ("info", "debug") else f" {level.upper()}"
    rest = "  ".join(f"{key}={_printable(value)}" for key, value in fields.items())
    return f"{clock}{mark} {model or '-':<16} {name:<10} {rest}".rstrip()


def _printable(value: object) -> str:
    """Return one line without control characters: a Model file or a runner can hold terminal escapes."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    spaced = " ".join(text.split())
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in spaced)
