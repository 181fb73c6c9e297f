"""Settings that the inspection and the early start need: the Model, the folders of weights, the termination log.

The module imports nothing that is slow to import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from corral_core.base.errors import InvalidSetting
from corral_core.base.settings import str_setting
from corral_core.contracts.model_variable import model_text
from corral_core.model.model import Model
from corral_core.model.resource import parse_runner_model
from corral_core.sources.locate import WeightsRoots

TERMINATION_LOG = Path("/dev/termination-log")
_SNAPSHOTS = TypeAdapter(dict[str, str])


def model_from(environ: Mapping[str, str]) -> Model:
    """Return the Model in ``CORRAL_MODEL`` and its continuations. Raises InvalidSetting and InvalidModel."""
    try:
        document = json.loads(model_text(environ))
    except (ValueError, RecursionError) as error:
        raise InvalidSetting(f"CORRAL_MODEL is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidSetting("CORRAL_MODEL is not allowed: it must be an object with name, namespace and spec")
    return parse_runner_model(document)


def roots_from(environ: Mapping[str, str]) -> WeightsRoots:
    """Return the folders that sources refer to. Raises InvalidSetting."""
    store = str_setting(environ, "CORRAL_STORE")
    return WeightsRoots(
        claim=Path(str_setting(environ, "CORRAL_PVC_ROOT", default="/weights")),
        store=Path(store) if store else None,
        snapshots=_snapshots(str_setting(environ, "CORRAL_SNAPSHOTS", default="{}")),
        image_path=str_setting(environ, "CORRAL_IMAGE_PATH"),
    )


def _snapshots(text: str) -> dict[str, str]:
    try:
        return dict(_SNAPSHOTS.validate_json(text))
    except ValueError as error:
        raise InvalidSetting("CORRAL_SNAPSHOTS is not allowed: it must be a JSON object of ids by source") from error


def termination_log_from(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the termination message, None if there is none.

    It does not depend on the other settings, so that an error in them can be reported.
    """
    named = str_setting(environ, "CORRAL_TERMINATION_LOG")
    if named:
        return Path(named)
    return TERMINATION_LOG if TERMINATION_LOG.exists() else None
