"""The runner's logs: JSON lines on stdout, ``{"ts", "level", "event", ...}``, for people and for who started it.

``event(...)`` writes one of the runner's own events; whatever modules and libraries log becomes an event named ``log``.
"""

from __future__ import annotations

import json
import logging
import sys
import time

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


def configure() -> None:
    """Everything from INFO on goes to stdout; uvicorn's and FastAPI's own lines only from WARNING on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    logging.getLogger("corral.runner").log(level, name, extra={"fields": fields})


def since(start: float) -> float:
    """Seconds since a ``time.monotonic()``, for an event's field."""
    return round(time.monotonic() - start, 3)
