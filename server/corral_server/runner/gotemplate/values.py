"""What templates compute with, and how Go writes, compares and takes them for true."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corral_server.runner.gotemplate.tokens import Unsupported


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct: only these fields can be asked for; it is written as its JSON."""

    name: str
    fields: Mapping[str, object]
    json: object


@dataclass(frozen=True, slots=True)
class Listed(Sequence[object]):
    """A list that is written as its JSON, as Ollama's list of tools is."""

    items: tuple[object, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int | slice) -> object:  # type: ignore[override]  # a slice gives a list of this kind
        return Listed(self.items[index]) if isinstance(index, slice) else self.items[index]


class JsonMap(dict[str, object]):
    """A map that is written as its JSON, as a call's arguments are."""


def is_true(value: object) -> bool:
    return True if isinstance(value, Struct) else bool(value)


def field(value: object, name: str) -> object:
    """A missing key of a map is nil, as in Ollama. Raises Unsupported for what has no such field."""
    if isinstance(value, Struct):
        if name not in value.fields:
            raise Unsupported(f".{name} of {value.name}")
        return value.fields[name]
    if isinstance(value, Mapping):
        return value.get(name)
    raise Unsupported(f".{name} of {kind(value)}")


def kind(value: object) -> str:
    if value is None:
        return "nil"
    if isinstance(value, Struct):
        return value.name
    kinds = {str: "a text", bool: "a bool", int: "a number", float: "a number"}
    return kinds.get(type(value), "a map" if isinstance(value, Mapping) else "a list")


def written(value: object) -> str:
    """As Go prints it; nil, which Go prints as ``<no value>``, is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Struct | Listed | JsonMap):
        return to_json(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{written(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, Sequence):
        return "[" + " ".join(written(item) for item in value) + "]"
    return format(value, "g") if isinstance(value, float) else str(value)


def to_json(value: object) -> str:
    """As Go marshals it: without white space, and with the characters of HTML escaped."""
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
