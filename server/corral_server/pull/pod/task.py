"""Environment of a resolver or puller pod, and its termination message.

The module imports nothing that is slow to import, so that an error in a setting is reported at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral_core.base import json_log
from corral_core.base.errors import InvalidSetting
from corral_core.base.received_json import parse_received
from corral_core.base.settings import int_setting, list_setting, str_setting

_TERMINATION_LOG: Final = Path("/dev/termination-log")
_MAX_SETTING: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class PullTask:
    """What a puller pulls: sources with their pins, and the size of all files in bytes, 0 if it is not known.

    ``identity`` is that of the Model (``corral_core.contracts.model_identity``); the progress is served at ``host`` and
    ``port``. ``keep`` are the snapshots that stay in the store besides those of the sources, None if all stay.
    """

    sources: tuple[tuple[str, str], ...]
    total: int
    store: Path
    host: str
    port: int
    identity: str
    keep: tuple[str, ...] | None = None


def pull_task(environ: Mapping[str, str]) -> PullTask:
    """Read the task of a puller. Raises InvalidSetting."""
    sources = []
    for item in _json_list(environ, "CORRAL_PULL"):
        uri, pin = (item.get(name) for name in ("uri", "pin")) if isinstance(item, dict) else (None, None)
        if not isinstance(uri, str) or not isinstance(pin, str):
            raise InvalidSetting('CORRAL_PULL must be a list like [{"uri": "hf://organization/model", "pin": ""}]')
        sources.append((uri, pin))
    if not sources:
        raise InvalidSetting("CORRAL_PULL is required: the sources to pull")
    return PullTask(
        sources=tuple(sources),
        total=int_setting(environ, "CORRAL_PULL_BYTES", default=0, minimum=0),
        store=Path(str_setting(environ, "CORRAL_STORE", default="/store")),
        host=str_setting(environ, "CORRAL_HOST", default="0.0.0.0"),  # noqa: S104  the operator is another pod
        port=int_setting(environ, "CORRAL_PORT", default=8080, minimum=0, maximum=65535),
        identity=str_setting(environ, "CORRAL_MODEL_IDENTITY"),
        keep=list_setting(environ, "CORRAL_KEEP_SNAPSHOTS") if "CORRAL_KEEP_SNAPSHOTS" in environ else None,
    )


def known_pins(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the pins of sources that were resolved before. Raises InvalidSetting."""
    value = environ.get("CORRAL_PINS", "")
    found = _parsed("CORRAL_PINS", value) if value else {}
    if not isinstance(found, dict) or not all(isinstance(pin, str) for pin in found.values()):
        raise InvalidSetting("CORRAL_PINS must be an object of pins by source")
    return found


def log_event(name: str, *, level: int = logging.INFO, **fields: object) -> None:
    json_log.log_event("corral.pull", name, level=level, fields=fields)


def write_termination_message(text: str) -> None:
    """Write the termination message, if the process has a place for one."""
    path = Path(os.environ.get("CORRAL_TERMINATION_LOG") or _TERMINATION_LOG)
    if path != _TERMINATION_LOG or path.exists():
        with suppress(OSError):
            path.write_text(text, "utf-8")


def exit_with(text: str) -> None:
    """End the process with an error, which is its termination message too."""
    print(text, file=sys.stderr, flush=True)
    log_event("exit", level=logging.ERROR, code=1, reason=text)
    write_termination_message(text)
    sys.exit(1)


def _json_list(environ: Mapping[str, str], name: str) -> list[object]:
    found = _parsed(name, environ.get(name) or "[]")
    if not isinstance(found, list):
        raise InvalidSetting(f"{name} must be a list")
    return found


def _parsed(name: str, value: str) -> object:
    try:
        return parse_received(value.encode(errors="replace"), limit=_MAX_SETTING)
    except ValueError as error:
        raise InvalidSetting(f"{name} is not JSON: {error}") from error
