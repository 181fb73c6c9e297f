"""YAML documents as plain JSON values, as strict as the API server.

- A duplicate key is an error, not a silent last-one-wins.
- Dates, keys that are not strings, numbers without a JSON form, recursive aliases and oversized documents are rejected.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping

import yaml

from corral_core.base.errors import InvalidModel, Problem

MAX_DEPTH = 64
MAX_VALUES = 100_000
MAX_CHARACTERS = 4 << 20
"""Characters of one file; the API server accepts objects of at most 1.5 MB."""


_MAX_STEP, _MAX_PATH = 100, 400
"""Characters of a key and of a path in an error."""

_Path = tuple[object, ...]
"""Keys and indexes. The text is made for an error alone: a long key above many values would be copied for each."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe loader that rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_documents(text: str, *, label: str) -> Iterator[object]:
    """Yield each document that is not empty as a JSON value. Raises InvalidModel with the name ``label``."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidModel(
            label, (Problem("(file)", f"{len(text)} characters", f"at most {MAX_CHARACTERS} characters"),)
        )
    try:
        for document in yaml.load_all(text, _UniqueKeyLoader):  # a subclass of SafeLoader
            if document is not None:
                yield to_json_value(document, label=label)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidModel(label, (Problem("(file)", _first_line(text), f"not valid YAML: {error}"),)) from error


def to_json_value(value: object, *, label: str) -> object:
    """Copy a value to JSON types. Raises InvalidModel with the path of the first value that has no JSON form."""
    return _JsonCopier(label).copy(value, ())


class _JsonCopier:
    """Copies one document and counts its values, which bounds the expansion of aliases."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._count = 0

    def copy(self, value: object, path: _Path) -> object:
        self._count += 1
        if len(path) > MAX_DEPTH or self._count > MAX_VALUES:
            raise self._refusal(
                path, type(value).__name__, allowed=f"at most {MAX_DEPTH} levels and {MAX_VALUES} values"
            )
        if isinstance(value, Mapping):
            return {self._key(key, path): self.copy(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(item, (*path, index)) for index, item in enumerate(value)]
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        raise self._refusal(path, value, allowed="a string, number, boolean, list or object (quote dates)")

    def _key(self, key: object, path: _Path) -> str:
        if not isinstance(key, str):
            raise self._refusal(path, key, allowed="a string key (quote numbers and booleans)")
        return key

    def _refusal(self, path: _Path, value: object, *, allowed: str) -> InvalidModel:
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}"[:_MAX_STEP] for step in path)
        return InvalidModel(self._label, (Problem(steps.lstrip(".")[:_MAX_PATH] or "(document)", value, allowed),))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:80]
