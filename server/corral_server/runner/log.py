"""The runner's own events, as ``corral_core.jsonlog`` writes them: for people, and for who started the runner."""

from __future__ import annotations

import logging
import time

from corral_core import jsonlog


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    jsonlog.event("corral.runner", name, level=level, fields=fields)


def since(start: float) -> float:
    """Seconds since a ``time.monotonic()``, for an event's field."""
    return round(time.monotonic() - start, 3)
