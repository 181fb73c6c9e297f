"""The options of a generation: a request's over the Model's parameters over Ollama's defaults.

An unknown option is ignored with a warning in the log. An option of the wrong type is an error with the text of
``Options.FromMap`` in Ollama's ``api/types.go``. Load options are checked and ignored: the Model's spec sets them when
the runner starts. Of them ``num_ctx`` alone counts in a request, up to the context of a slot (``context_length``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Literal, NoReturn

from corral_server.runner.sampling.parameters import SamplingParameters
from corral_server.wire.errors import ApiError

log = logging.getLogger("corral.runner.options")

_LOGGABLE_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
"""Option names that may be logged; any other text could be a part of a prompt in the wrong place."""

Kind = Literal["integer", "float32", "boolean", "array"]

LOAD_OPTIONS: Mapping[str, Kind] = {
    "num_ctx": "integer",
    "num_batch": "integer",
    "num_gpu": "integer",
    "main_gpu": "integer",
    "use_mmap": "boolean",
    "num_thread": "integer",
    "draft_num_predict": "integer",
}
REQUEST_OPTIONS: Mapping[str, Kind] = {
    "num_keep": "integer",
    "seed": "integer",
    "num_predict": "integer",
    "top_k": "integer",
    "top_p": "float32",
    "min_p": "float32",
    "typical_p": "float32",
    "repeat_last_n": "integer",
    "temperature": "float32",
    "repeat_penalty": "float32",
    "presence_penalty": "float32",
    "frequency_penalty": "float32",
    "stop": "array",
}
_OPTION_KINDS: Mapping[str, Kind] = {**LOAD_OPTIONS, **REQUEST_OPTIONS}
_SAMPLING_OPTIONS = frozenset(field.name for field in fields(SamplingParameters))
_INT32 = 2**31 - 1
_FLOAT32 = 3.4e38


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """The options that a request may set.

    ``num_predict`` of 0 or less means no limit. No stop string is empty. ``num_ctx`` is the context length that the
    request asks for in tokens, 0 if it asks for none.
    """

    sampling: SamplingParameters = field(default_factory=SamplingParameters)
    stop: tuple[str, ...] = ()
    num_predict: int = -1
    num_keep: int = 4
    num_ctx: int = 0

    def merged(self, options: Mapping[str, object]) -> GenerationOptions:
        """Return these options with ``options`` over them. Raises ApiError 500 with Ollama's text for a wrong type."""
        values = {
            name: _checked_value(name, value)
            for name, value in options.items()
            if value is not None and _is_known(name)
        }
        numbers = {name: value for name, value in values.items() if not isinstance(value, tuple)}
        stop = values.get("stop")
        return GenerationOptions(
            sampling=SamplingParameters(
                **{**asdict(self.sampling), **{name: numbers[name] for name in _SAMPLING_OPTIONS & numbers.keys()}}
            ),
            stop=stop if isinstance(stop, tuple) else self.stop,
            num_predict=int(numbers.get("num_predict", self.num_predict)),
            num_keep=int(numbers.get("num_keep", self.num_keep)),
            num_ctx=int(numbers.get("num_ctx", self.num_ctx)),
        )


def _is_known(name: str) -> bool:
    if name in _OPTION_KINDS:
        return True
    log.warning("invalid option provided: %s", name if _LOGGABLE_NAME.fullmatch(name) else "(not a name)")
    return False


def _checked_value(name: str, value: object) -> int | float | tuple[str, ...]:
    """Clamp the value to the engine's range. The fraction of an integer option is cut off, as by Go's ``int(val)``."""
    kind = _OPTION_KINDS[name]
    if kind == "array":
        return _checked_strings(name, value)
    if isinstance(value, bool) != (kind == "boolean") or not isinstance(value, int | float):
        _raise_type_error(name, kind)
    if kind == "float32":
        return float(max(-_FLOAT32, min(value, _FLOAT32)))
    return _seed(int(value)) if name == "seed" else max(-_INT32, min(int(value), _INT32))


def _seed(value: int) -> int:
    """Return -1 (a random seed) unchanged, any other number modulo 2**32."""
    return -1 if value == -1 else value & 0xFFFF_FFFF


def _checked_strings(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        _raise_type_error(name, "array")
    if not all(isinstance(item, str) for item in value):
        raise ApiError(500, f'option "{name}" must be of an array of strings')
    return tuple(item for item in value if item)


def _raise_type_error(name: str, kind: Kind) -> NoReturn:
    raise ApiError(500, f'option "{name}" must be of type {kind}')
