"""The operator's events, as ``corral_core.jsonlog`` writes them, and how much of kopf's own words is heard."""

from __future__ import annotations

import logging

from corral_core import jsonlog


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    jsonlog.event("corral.operator", name, level=level, fields=fields)


def configure(level: str) -> None:
    """kopf is heard from warnings on, but not about every try of every watch while the API server is away."""
    jsonlog.configure()
    logging.getLogger().setLevel(level)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # signals are ours: it runs in a thread
