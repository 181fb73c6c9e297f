"""What a registry holds of a Modelfile besides weights, checked and bounded.

A template, a system prompt, parameters and messages change what a model answers, so an invalid one is an error.
Licenses are only shown: one that is too long is shortened or left out, and those above the allowed number are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.base.json_fields import get_str
from corral_core.base.received_json import parse_received, parse_received_object
from corral_core.contracts.source_defaults import (
    MAX_LICENSES,
    MAX_MESSAGES,
    MAX_PARAMETERS,
    MAX_TEXT,
    SourceDefaults,
    SourceMessage,
)

TEXT_LIMIT: Final = 4 * MAX_TEXT
"""Bytes of a text: a character of UTF-8 has at most four."""
JSON_LIMIT: Final = 1024 * 1024
"""Bytes of the parameters or the messages."""
_MAX_NAME: Final = 64
_MAX_STRINGS: Final = 64
_MAX_STRING: Final = 4096
_ROLES: Final = ("system", "user", "assistant")


@dataclass(slots=True)
class ModelfileParts:
    """Collects the parts in the order of the layers; a later template replaces an earlier one, as in Ollama."""

    template: str = ""
    system: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    messages: tuple[SourceMessage, ...] = ()
    licenses: list[str] = field(default_factory=list)

    def add_license(self, content: bytes) -> None:
        """Add the text of a license."""
        text = content.decode(errors="replace")[:MAX_TEXT].strip()
        if text and len(self.licenses) < MAX_LICENSES and text not in self.licenses:
            self.licenses.append(text)

    def defaults(self) -> SourceDefaults:
        """Return what was collected."""
        return SourceDefaults(self.template, self.system, self.parameters, self.messages, tuple(self.licenses))


def parse_text(content: bytes, what: str) -> str:
    """Return a template or a system prompt. Raises SourceError."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SourceError(f"the {what} of the model is not valid UTF-8") from None
    if len(text) > MAX_TEXT:
        raise SourceError(f"the {what} of the model has more than {MAX_TEXT} characters")
    return text


def parse_parameters(content: bytes) -> Mapping[str, object]:
    """Return the parameters of a Modelfile: numbers, booleans, strings and lists of strings. Raises SourceError."""
    try:
        data = parse_received_object(content, limit=JSON_LIMIT)
    except ValueError as error:
        raise SourceError(f"the parameters of the model are not valid: {error}") from None
    if len(data) > MAX_PARAMETERS:
        raise SourceError(f"the model has {len(data)} parameters; at most {MAX_PARAMETERS} are allowed")
    return {name: _parameter(name, value) for name, value in data.items() if value is not None}


def parse_messages(content: bytes) -> tuple[SourceMessage, ...]:
    """Return the messages of a Modelfile. Raises SourceError."""
    try:
        data = parse_received(content, limit=JSON_LIMIT)
    except ValueError as error:
        raise SourceError(f"the messages of the model are not valid: {error}") from None
    if data is None:
        return ()
    if not isinstance(data, list) or len(data) > MAX_MESSAGES:
        raise SourceError(f"the messages of the model must be a list of at most {MAX_MESSAGES}")
    return tuple(_message(item) for item in data)


def _parameter(name: str, value: object) -> object:
    if len(name) <= _MAX_NAME:
        if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _MAX_STRING):
            return value
        if isinstance(value, list) and len(value) <= _MAX_STRINGS and _are_strings(value):
            return value
    raise SourceError(
        f"the parameter {name[:_MAX_NAME]!r} of the model must be a number, a boolean, a string or a list of strings"
    )


def _are_strings(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) and len(value) <= _MAX_STRING for value in values)


def _message(item: object) -> SourceMessage:
    role, content = get_str(item, "role"), get_str(item, "content")
    if role not in _ROLES or len(content) > MAX_TEXT:
        raise SourceError(f"a message of the model must have a role ({', '.join(_ROLES)}) and a content")
    return SourceMessage(role, content)
