"""The gateway's logs: JSON lines on stdout, ``{"ts", "level", "event", ...}``.

``event(...)`` writes one of the gateway's own events; what modules and libraries log becomes an event named ``log``.
Requests and prompts are never logged.
"""

from __future__ import annotations

import json
import logging
import sys

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
    """Everything from INFO on goes to stdout; uvicorn's own lines only from WARNING on."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def event(name: str, **fields: object) -> None:
    logging.getLogger("corral.gateway").info(name, extra={"fields": fields})
