"""The options of a generation: a request's over the Model's parameters over Ollama's defaults.

An unknown option is ignored with a log line, one of a wrong type is refused with Ollama's text. Load-time options
(``num_ctx`` ...) are checked and then left alone: a runner is started with its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Literal, NoReturn

from corral_server.runner.generation import Sampling
from corral_server.wire.errors import ApiError

log = logging.getLogger("corral.runner.options")

_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
"""What is logged of a request; any other text may be part of a prompt that went to the wrong place."""

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
_KINDS: Mapping[str, Kind] = {**LOAD_OPTIONS, **REQUEST_OPTIONS}
_SAMPLING = frozenset(field.name for field in fields(Sampling))
_INT32 = 2**31 - 1
_FLOAT32 = 3.4e38


@dataclass(frozen=True, slots=True)
class Options:
    """What each request may set anew. ``num_predict`` of 0 or less means no limit; no stop string is empty."""

    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    num_predict: int = -1
    num_keep: int = 4

    def updated(self, given: Mapping[str, object]) -> Options:
        """These options with ``given`` over them. Raises ApiError 500 with Ollama's text for a wrong type."""
        values = {name: _checked(name, value) for name, value in given.items() if value is not None and _known(name)}
        numbers = {name: value for name, value in values.items() if not isinstance(value, tuple)}
        stop = values.get("stop")
        return Options(
            sampling=Sampling(
                **{**asdict(self.sampling), **{name: numbers[name] for name in _SAMPLING & numbers.keys()}}
            ),
            stop=stop if isinstance(stop, tuple) else self.stop,
            num_predict=int(numbers.get("num_predict", self.num_predict)),
            num_keep=int(numbers.get("num_keep", self.num_keep)),
        )


def _known(name: str) -> bool:
    if name in _KINDS:
        return True
    log.warning("invalid option provided: %s", name if _NAME.fullmatch(name) else "(not a name)")
    return False


def _checked(name: str, value: object) -> int | float | tuple[str, ...]:
    """The value in the range that the engine takes; fractions of an integer option are cut off, as Go does."""
    kind = _KINDS[name]
    if kind == "array":
        return _texts(name, value)
    if isinstance(value, bool) != (kind == "boolean") or not isinstance(value, int | float):
        _refuse(name, kind)
    if kind == "float32":
        return float(max(-_FLOAT32, min(value, _FLOAT32)))
    return _seed(int(value)) if name == "seed" else max(-_INT32, min(int(value), _INT32))


def _seed(value: int) -> int:
    """-1 draws one; any other number is taken modulo 2**32."""
    return -1 if value == -1 else value & 0xFFFF_FFFF


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        _refuse(name, "array")
    if not all(isinstance(item, str) for item in value):
        raise ApiError(500, f'option "{name}" must be of an array of strings')
    return tuple(item for item in value if item)


def _refuse(name: str, kind: Kind) -> NoReturn:
    raise ApiError(500, f'option "{name}" must be of type {kind}')
