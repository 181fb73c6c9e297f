"""Structured logs: one JSON object a line on stdout, ``{"ts", "level", "event", ...}``.

A process's own events come with their ``fields``; whatever else modules and libraries log becomes an event named
``log``. Requests and prompts are never logged.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping

from corral_core.timestamps import format_micro


class JsonLines(logging.Formatter):
    """One record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line: dict[str, object] = {"ts": format_micro(record.created), "level": record.levelname.lower()}
        if isinstance(fields, dict):
            line |= {"event": record.getMessage(), **fields}
        else:
            line |= {"event": "log", "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def origin(error: BaseException) -> str:
    """What kind of error, and where it was raised; without its text, which may quote the request that it comes from."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


def configure() -> None:
    """Everything from INFO on goes to stdout; uvicorn's own lines only from WARNING on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def event(logger: str, name: str, *, level: int = logging.INFO, fields: Mapping[str, object]) -> None:
    """Writes one event of the process's own."""
    logging.getLogger(logger).log(level, name, extra={"fields": dict(fields)})
