"""Typed access to untrusted JSON: a field of another type reads as absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

JsonObject = Mapping[str, object]

_EMPTY: JsonObject = {}


def get_value(document: object, *path: str) -> object:
    """Return the value at ``path`` through nested objects; None if a step is missing or not an object."""
    for step in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(step)
    return document


def get_object(document: object, *path: str) -> JsonObject:
    value = get_value(document, *path)
    return value if isinstance(value, Mapping) else _EMPTY


def get_objects(document: object, *path: str) -> Sequence[JsonObject]:
    """Return the objects of the list at ``path``; items of other types are skipped."""
    value = get_value(document, *path)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def get_str(document: object, *path: str) -> str:
    value = get_value(document, *path)
    return value if isinstance(value, str) else ""


def get_int(document: object, *path: str) -> int:
    value = get_value(document, *path)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
