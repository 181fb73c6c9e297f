"""Errors of the core.

CorralError
├── InvalidModel      a Model resource that violates its schema
├── InvalidName       a model name that cannot be parsed
├── InvalidDuration   a keep_alive or a setting that is not a duration
├── InvalidSetting    an environment variable with an invalid value
├── InvalidQuantity   a resource quantity that cannot be parsed
├── GGUFError         a weights file that is not a GGUF file or is damaged
└── SourceError       weights that are missing, unreadable or fail their digest
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


class CorralError(Exception):
    """Base of the errors that Corral raises; the text is written for users."""


MISSING: Final = "(nothing)"
"""Value of a Problem whose field is missing."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Validation error of one field: path (``spec.gpu.count``), value (MISSING if absent) and what is allowed."""

    field: str
    value: object
    allowed: str

    def __str__(self) -> str:
        if self.value is MISSING:
            return f"{self.field}: {self.allowed}"
        return f"{self.field}: {self.value!r} is not allowed: {self.allowed}"


class InvalidModel(CorralError):
    """A Model that is not valid, with all of its problems."""

    def __init__(self, model: str, problems: tuple[Problem, ...]) -> None:
        super().__init__(f"Model {model} is not valid:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.model = model
        self.problems = problems


class InvalidName(CorralError):
    """A model name that is not of the form ``[host/][namespace/]model[:tag]``."""


class InvalidDuration(CorralError):
    """A string that is not a duration, with the message of Go's ``time.ParseDuration``."""


class InvalidSetting(CorralError):
    """An environment variable with an invalid value; the text says what is allowed."""


class InvalidQuantity(CorralError):
    """A string that is not a Kubernetes quantity such as ``500m`` or ``4Gi``."""


class GGUFError(CorralError):
    """A file that is not a GGUF file, or whose header exceeds the file."""


class SourceError(CorralError):
    """Weights that are missing, unreadable or fail their digest."""
