"""What a request may ask of a model, refused with Ollama's texts where the model or this runner cannot do it."""

from __future__ import annotations

from corral_core.errors import InvalidName
from corral_core.facts import ModelFacts
from corral_core.names import canonical, full
from corral_server.runner.requests import Fields
from corral_server.wire.errors import ApiError

Think = bool | str | None
"""Off, on or one of ``LEVELS``; None when unset."""

LEVELS = ("high", "medium", "low", "max")
MAX_LOGPROBS = 20


def check_name(model: str) -> None:
    """The gateway chose this runner by the name; here it only has to be one."""
    try:
        canonical(model)
    except InvalidName as error:
        raise ApiError(400, "invalid model name") from error


def think_of(fields: Fields) -> Think:
    """``think`` of the native API. Raises ApiError 400."""
    value = fields.raw("think")
    if isinstance(value, bool) or value is None:
        return value
    if not isinstance(value, str):
        raise ApiError(400, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)')
    if value not in LEVELS:
        raise ApiError(400, f'invalid think value: "{value}" (must be "high", "medium", "low", "max", true, or false)')
    return value


def check_think(think: Think, model: str, facts: ModelFacts) -> None:
    if think and "thinking" not in facts.capabilities:
        raise ApiError(400, f'"{model}" does not support thinking')


def thinks(think: Think, facts: ModelFacts) -> bool:
    """Whether thinking is to be told from the answer: unset means on for a model that thinks."""
    return think is not False and "thinking" in facts.capabilities


def top_logprobs_of(fields: Fields) -> int:
    """Raises ApiError 400 for a number that is out of range, whether logprobs are asked for or not."""
    top = fields.integer("top_logprobs") or 0
    if not 0 <= top <= MAX_LOGPROBS:
        raise ApiError(400, f"top_logprobs must be between 0 and {MAX_LOGPROBS}")
    return top


def check_tools(facts: ModelFacts, model: str) -> None:
    if "tools" not in facts.capabilities:
        raise ApiError(400, f"{full(model)} does not support tools")


def check_insert(facts: ModelFacts, model: str) -> None:
    if "insert" not in facts.capabilities:
        raise ApiError(400, f"{full(model)} does not support insert")


def refuse_images(model: str) -> None:
    raise ApiError(400, f'"{model}" does not support images')


def check_completion(facts: ModelFacts, model: str, action: str) -> None:
    """``action`` is ``chat`` or ``generate``."""
    if "completion" not in facts.capabilities:
        raise ApiError(400, f'"{model}" does not support {action}')
