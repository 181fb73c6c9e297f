"""Structured logs: one JSON object per line on stdout, ``{"ts", "level", "event", ...}``.

- Corral's own events carry ``fields``; other log records become an event named ``log``.
- Requests and prompts are never logged.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping

from corral_core.base.timestamps import format_micro_time


class JsonLineFormatter(logging.Formatter):
    """Formats a log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line: dict[str, object] = {"ts": format_micro_time(record.created), "level": record.levelname.lower()}
        if isinstance(fields, dict):
            line |= {"event": record.getMessage(), **fields}
        else:
            line |= {"event": "log", "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def error_location(error: BaseException) -> str:
    """Format an error's type and traceback without its message, which may quote the request."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"


def configure_logging() -> None:
    """Log to stdout from level INFO, uvicorn's records from level WARNING."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def log_event(logger: str, name: str, *, level: int = logging.INFO, fields: Mapping[str, object]) -> None:
    """Log one event."""
    logging.getLogger(logger).log(level, name, extra={"fields": dict(fields)})
