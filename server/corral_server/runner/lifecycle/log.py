"""Log events of the runner process, written by ``corral_core.base.json_log``; ``corral serve`` reads them too."""

from __future__ import annotations

import logging
import time

from corral_core.base import json_log


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    json_log.log_event("corral.runner", name, level=level, fields=fields)


def seconds_since(start: float) -> float:
    """Return the seconds since ``start`` on ``time.monotonic()``, rounded to milliseconds for a field of an event."""
    return round(time.monotonic() - start, 3)
