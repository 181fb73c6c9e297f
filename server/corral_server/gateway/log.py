"""The gateway's own events, as ``corral_core.jsonlog`` writes them."""

from __future__ import annotations

from corral_core import jsonlog


def event(name: str, **fields: object) -> None:
    jsonlog.event("corral.gateway", name, fields=fields)
