"""Structured logs of local mode: one line an event, readable on a terminal, JSON on a pipe.

A JSON line is ``{"ts": RFC 3339, "level", "event", ["model"], ...}``. The events of a Model's life, in their order:
``demand`` (requests wait), ``plan`` (what was decided, and why), ``started`` (the runner's process is there), the
runner's own ``listening``, ``loading`` and ``loaded``, ``ready`` (requests are sent to it), ``stopping``, ``exited``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TextIO

from corral_core.timestamps import format_micro, parse_timestamp

_HEAD = frozenset({"ts", "level", "event", "model"})


class EventLog:
    """Writes events to one stream. A reader that went away is no reason to stop serving, so its loss is ignored."""

    def __init__(self, stream: TextIO, *, human: bool, verbose: bool = False) -> None:
        self._stream = stream
        self._verbose = verbose
        self._format = _readable if human else _json_line

    def event(self, name: str, model: str = "", /, **fields: object) -> None:
        """Something happened; ``model`` is whom it is about."""
        self.write(time.time(), "info", name, model=model, fields=fields)

    def debug(self, name: str, model: str = "", /, **fields: object) -> None:
        self.write(time.time(), "debug", name, model=model, fields=fields)

    def problem(self, name: str, model: str = "", /, **fields: object) -> None:
        self.write(time.time(), "error", name, model=model, fields=fields)

    def relay(self, model: str, text: str) -> None:
        """One line that a runner wrote: its own event with its own time, or any text."""
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not isinstance(line.get("event"), str):
            self.debug("output", model, text=text)
            return
        fields = {str(name): value for name, value in line.items() if name not in _HEAD}
        level = str(line.get("level", "info")).lower()
        self.write(_moment(line.get("ts")), level, line["event"], model=model, fields=fields)

    def write(self, at: float, level: str, name: str, *, model: str, fields: Mapping[str, object]) -> None:
        """One line. ``at`` is Unix seconds."""
        if level == "debug" and not self._verbose:
            return
        try:
            self._stream.write(self._format(at, level, name, model=model, fields=fields) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return


class Bridge(logging.Handler):
    """Brings what libraries log into the same lines."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        self._log.write(record.created, record.levelname.lower(), "log", model="", fields=fields)


def _moment(value: object) -> float:
    """A runner's time, whether it is RFC 3339 or Unix seconds; now when it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    parsed = parse_timestamp(value) if isinstance(value, str) else None
    return time.time() if parsed is None else parsed


def _json_line(at: float, level: str, name: str, *, model: str, fields: Mapping[str, object]) -> str:
    head: dict[str, object] = {"ts": format_micro(at), "level": level, "event": name}
    line = head | ({"model": model} if model else {}) | dict(fields)
    return json.dumps(line, ensure_ascii=False, default=str)


def _readable(at: float, level: str, name: str, *, model: str, fields: Mapping[str, object]) -> str:
    clock = datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S.%f")[:-3]
    mark = "" if level in ("info", "debug") else f" {level.upper()}"
    rest = "  ".join(f"{key}={_short(value)}" for key, value in fields.items())
    return f"{clock}{mark} {model or '-':<16} {name:<10} {rest}".rstrip()


def _short(value: object) -> str:
    """One line that does nothing to a terminal, whatever a model file or a runner wrote."""
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    spaced = " ".join(text.split())
    return "".join(character if character.isprintable() else f"\\x{ord(character):02x}" for character in spaced)
