"""What a source brings of a Modelfile besides weights; what the Model says itself has precedence.

Registries and repositories are written by others, so every length is bounded: ``from_json`` raises ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from pydantic import ConfigDict, Field, StrictStr
from pydantic.alias_generators import to_camel

from corral_core.base.json_codec import JsonCodec

MAX_TEXT: Final = 256 * 1024
"""Characters of a template, a system prompt or a license."""
MAX_MESSAGES: Final = 256
MAX_LICENSES: Final = 16
MAX_PARAMETERS: Final = 128

Text = Annotated[StrictStr, Field(max_length=MAX_TEXT)]


@dataclass(frozen=True, slots=True)
class SourceMessage:
    """Message of an example conversation that precedes every chat."""

    role: Annotated[StrictStr, Field(max_length=32)]
    content: Text


@dataclass(frozen=True, slots=True)
class SourceDefaults:
    """``template`` is a chat template, Go's or Jinja's; ``parameters`` are named as in a Modelfile."""

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)

    template: Text = ""
    system: Text = ""
    parameters: Annotated[Mapping[str, object], Field(max_length=MAX_PARAMETERS)] = field(default_factory=dict)
    messages: Annotated[tuple[SourceMessage, ...], Field(max_length=MAX_MESSAGES, strict=False)] = ()
    licenses: Annotated[tuple[Text, ...], Field(max_length=MAX_LICENSES, strict=False)] = ()

    def to_json(self) -> dict[str, object]:
        """Convert to JSON, without empty fields."""
        return {key: value for key, value in _CODEC.encode(self).items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> SourceDefaults:
        """Parse. Raises ValueError if a field is invalid or out of bounds."""
        return _CODEC.decode(data)


_CODEC = JsonCodec(SourceDefaults, "source defaults")
NO_DEFAULTS: Final = SourceDefaults()
