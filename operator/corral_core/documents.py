"""YAML text into plain JSON values, as strictly as the API server takes them.

A key that is there twice is an error and not a silent last-one-wins; dates, non-text keys, numbers that JSON does not
have, aliases that contain themselves and documents beyond a size are refused.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping

import yaml

from corral_core.errors import InvalidModel, Problem

Document = Mapping[str, object]

MAX_DEPTH = 64
MAX_VALUES = 100_000
MAX_TEXT = 4 << 20
"""Characters of one file; the API server takes at most 1.5 MB of an object."""


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def documents_of(text: str, *, label: str) -> Iterator[object]:
    """Each YAML document that is not empty, as a plain value. Raises InvalidModel, named by ``label``."""
    if len(text) > MAX_TEXT:
        raise InvalidModel(label, (Problem("(file)", f"{len(text)} characters", f"at most {MAX_TEXT} characters"),))
    try:
        for document in yaml.load_all(text, _StrictLoader):  # a subclass of the safe loader
            if document is not None:
                yield plain_value(document, label=label)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidModel(label, (Problem("(file)", _first_line(text), f"YAML is expected: {error}"),)) from error


def plain_value(value: object, *, label: str) -> object:
    """A copy of nothing but JSON's types. Raises InvalidModel with the path of the first value that is none."""
    return _Copier(label).copy(value, "", depth=0)


class _Copier:
    """One walk over one document; counts what it copies, so that aliases cannot multiply without end."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._count = 0

    def copy(self, value: object, path: str, *, depth: int) -> object:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise self._refusal(
                path, type(value).__name__, allowed=f"at most {MAX_DEPTH} levels and {MAX_VALUES} values"
            )
        if isinstance(value, Mapping):
            return {
                self._key(key, path): self.copy(item, f"{path}.{key}", depth=depth + 1) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.copy(item, f"{path}[{index}]", depth=depth + 1) for index, item in enumerate(value)]
        if value is None or isinstance(value, str | bool | int):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        raise self._refusal(path, value, allowed="text, numbers, true or false, lists and objects (dates need quotes)")

    def _key(self, key: object, path: str) -> str:
        if not isinstance(key, str):
            raise self._refusal(path, key, allowed="a text as key (numbers and true or false need quotes)")
        return key

    def _refusal(self, path: str, value: object, *, allowed: str) -> InvalidModel:
        return InvalidModel(self._label, (Problem(path.lstrip(".") or "(document)", value, allowed),))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:80]
