"""What a runner is told before anything else: its Model, and where its last words go. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from corral_core.errors import InvalidSetting
from corral_core.model import Model
from corral_core.resource import parse_served
from corral_core.settings import text_setting

TERMINATION_LOG = Path("/dev/termination-log")


def model_of(environ: Mapping[str, str]) -> Model:
    """Raises InvalidSetting and InvalidModel."""
    text = environ.get("CORRAL_MODEL", "")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSetting(f"CORRAL_MODEL is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidSetting("CORRAL_MODEL is not allowed: it must be an object with name, namespace and spec")
    return parse_served(document)


def pvc_root_of(environ: Mapping[str, str]) -> Path:
    """The folder that ``pvc://`` leads to."""
    return Path(text_setting(environ, "CORRAL_PVC_ROOT", default="/weights"))


def termination_log_of(environ: Mapping[str, str]) -> Path | None:
    """Where the last words go; known even when the rest of the environment is refused."""
    named = text_setting(environ, "CORRAL_TERMINATION_LOG")
    if named:
        return Path(named)
    return TERMINATION_LOG if TERMINATION_LOG.exists() else None
