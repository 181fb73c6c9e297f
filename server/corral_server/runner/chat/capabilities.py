"""Checks of a request against the capabilities of the model. All raise ApiError with Ollama's literal texts.

Source: ``scheduleRunner`` and ``CheckCapabilities`` in Ollama's ``server/routes.go`` and ``server/images.go``.
"""

from __future__ import annotations

from corral_core.base.errors import InvalidName
from corral_core.base.names import canonical_name, full_name
from corral_core.contracts.model_metadata import ModelMetadata
from corral_server.wire.errors import ApiError

ThinkSetting = bool | str | None
"""Ollama's ``think``: off, on or one of ``THINK_LEVELS``; None when unset."""

THINK_LEVELS = ("high", "medium", "low", "max")


def check_model_name(model: str) -> None:
    """Raises ApiError 400 for an invalid name. Whether the name is this Model's is the gateway's decision."""
    try:
        canonical_name(model)
    except InvalidName as error:
        raise ApiError(400, "invalid model name") from error


def check_think(think: ThinkSetting, model: str, metadata: ModelMetadata) -> None:
    if think and "thinking" not in metadata.capabilities:
        raise ApiError(400, f'"{model}" does not support thinking')


def thinking_enabled(think: ThinkSetting, metadata: ModelMetadata) -> bool:
    """Return whether thinking is separated from the answer. Unset means yes for a model with the capability."""
    return think is not False and "thinking" in metadata.capabilities


def check_tools(metadata: ModelMetadata, model: str) -> None:
    if "tools" not in metadata.capabilities:
        raise ApiError(400, f"{full_name(model)} does not support tools")


def check_insert(metadata: ModelMetadata, model: str) -> None:
    if "insert" not in metadata.capabilities:
        raise ApiError(400, f"{full_name(model)} does not support insert")


def check_images(accepts_images: bool, model: str) -> None:
    if not accepts_images:
        raise ApiError(400, f'"{model}" does not support images')


def check_completion(metadata: ModelMetadata, model: str, action: str) -> None:
    """``action`` is ``chat`` or ``generate``."""
    if "completion" not in metadata.capabilities:
        raise ApiError(400, f'"{model}" does not support {action}')
