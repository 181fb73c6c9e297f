"""Log events of the operator, in the format of ``corral_core.base.json_log``, and the log levels of kopf."""

from __future__ import annotations

import logging

from corral_core.base import json_log


def event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    json_log.log_event("corral.operator", name, level=level, fields=fields)


def configure(level: str) -> None:
    """Log kopf from warnings on, without each retry of each watch while the API server is unreachable."""
    json_log.configure_logging()
    logging.getLogger().setLevel(level)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._cogs.clients").setLevel(logging.CRITICAL)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it warns that it handles no signals
