"""Log events of the gateway."""

from __future__ import annotations

import logging

from corral_core.base import json_log


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    json_log.log_event("corral.gateway", name, level=level, fields=fields)
