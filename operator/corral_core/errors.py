"""The errors of the core.

CorralError
├── InvalidModel      a Model resource that breaks its schema
├── InvalidName       a model name that cannot be parsed
├── InvalidDuration   a keep_alive or a setting that is no duration
├── InvalidSetting    an environment variable whose value is refused
├── InvalidQuantity   an amount of a resource that cannot be read
├── GGUFError         a weights file that is not a GGUF or is damaged
└── SourceError       weights that cannot be found or are not what was promised
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


class CorralError(Exception):
    """Base of every error that Corral raises on purpose; its text is meant for a person."""


NOTHING: Final = "(nothing)"
"""The value of a Problem whose field is missing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a Model: where (``spec.gpu.count``), the value found, and what is allowed.

    ``value`` is NOTHING where a field is missing.
    """

    field: str
    value: object
    allowed: str

    def __str__(self) -> str:
        if self.value is NOTHING:
            return f"{self.field}: {self.allowed}"
        return f"{self.field}: {self.value!r} is not allowed: {self.allowed}"


class InvalidModel(CorralError):
    """A Model with all of its problems, not only the first."""

    def __init__(self, model: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"Model {model} is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.model = model
        self.problems = problems


class InvalidName(CorralError):
    """A model name outside Ollama's grammar ``[host/][namespace/]model[:tag]``."""


class InvalidDuration(CorralError):
    """Text that is no duration, with the message Go's ``time.ParseDuration`` would give."""


class InvalidSetting(CorralError):
    """An environment variable with a value that is refused; the text says what is allowed."""


class InvalidQuantity(CorralError):
    """Text that is no quantity of the Kubernetes API, such as ``500m`` or ``4Gi``."""


class GGUFError(CorralError):
    """A file that is no GGUF, or whose header claims what the file cannot hold."""


class SourceError(CorralError):
    """Weights that are missing, unreadable or fail their digest."""
