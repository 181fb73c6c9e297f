"""Values of templates: how Go prints, compares and tests them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corral_server.runner.templates.go.tokens import UnsupportedTemplate
from corral_server.runner.templates.limits import Composite


@dataclass(frozen=True, slots=True)
class Struct(Composite):
    """A Go struct. Only its fields can be accessed; it prints as JSON."""

    name: str
    fields: Mapping[str, object]
    json: object

    def text_parts(self) -> Sequence[object]:
        return (self.json,)


@dataclass(frozen=True, slots=True)
class JsonList(Composite, Sequence[object]):
    """A list that prints as JSON, as Ollama's ``api.Tools`` does."""

    items: tuple[object, ...]

    def text_parts(self) -> Sequence[object]:
        return self.items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int | slice) -> object:  # type: ignore[override]  # a slice gives a list of this kind
        return JsonList(self.items[index]) if isinstance(index, slice) else self.items[index]


class JsonMap(dict[str, object]):
    """A map that prints as JSON, as the arguments of a call do."""


def is_true(value: object) -> bool:
    return True if isinstance(value, Struct) else bool(value)


def get_field(value: object, name: str) -> object:
    """Return a field; a missing map key is nil, as in Ollama. Raises UnsupportedTemplate for other values."""
    if isinstance(value, Struct):
        if name not in value.fields:
            raise UnsupportedTemplate(f".{name} of {value.name}")
        return value.fields[name]
    if isinstance(value, Mapping):
        return value.get(name)
    raise UnsupportedTemplate(f".{name} of {type_name(value)}")


def type_name(value: object) -> str:
    if value is None:
        return "nil"
    if isinstance(value, Struct):
        return value.name
    kinds = {str: "a text", bool: "a bool", int: "a number", float: "a number"}
    return kinds.get(type(value), "a map" if isinstance(value, Mapping) else "a list")


def format_value(value: object) -> str:
    """Print a value as Go does, except that nil is empty and not ``<no value>``."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Struct | JsonList | JsonMap):
        return to_json(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{format_value(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, Sequence):
        return "[" + " ".join(format_value(item) for item in value) + "]"
    return format(value, "g") if isinstance(value, float) else str(value)


def to_json(value: object) -> str:
    """Encode as Go does: without white space and with escaped HTML characters."""
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(value: object) -> object:
    if isinstance(value, Struct):
        return value.json
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
