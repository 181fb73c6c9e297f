"""Reading JSON from another process without believing its shape: a field of another type reads as absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Json = Mapping[str, object]

_EMPTY: Json = {}


def dig(document: object, *path: str) -> object:
    """The value at ``path`` through nested objects, or None when a step is missing or is no object."""
    for step in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(step)
    return document


def mapping(document: object, *path: str) -> Json:
    value = dig(document, *path)
    return value if isinstance(value, Mapping) else _EMPTY


def objects(document: object, *path: str) -> Sequence[Json]:
    """The objects of the list at ``path``; items that are no objects are left out."""
    value = dig(document, *path)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def text(document: object, *path: str) -> str:
    value = dig(document, *path)
    return value if isinstance(value, str) else ""


def integer(document: object, *path: str) -> int:
    value = dig(document, *path)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
