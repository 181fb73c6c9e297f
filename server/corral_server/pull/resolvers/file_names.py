"""Names of files in a snapshot, such that llama.cpp loads them.

- A name consists of ASCII letters, digits, ``.``, ``_`` and ``-``, does not start with ``.``, and ends in ``.gguf``.
- The parts of a split file differ only in ``-00001-of-0000N`` (``split_files``).
"""

from __future__ import annotations

import re
from typing import Final

from corral_server.pull.resolvers.split_files import parse_split

_MAX_STEM: Final = 180
_SUFFIX: Final = ".gguf"
_OTHER: Final = re.compile(r"[^A-Za-z0-9._-]+")


def gguf_name(text: str) -> str:
    """Return the file name for a text such as a model's name and tag, or the name of a file."""
    return f"{_stem(text)}{_SUFFIX}"


def part_names(text: str, count: int) -> list[str]:
    """Return the names of a model's files: one, or the parts of a split file."""
    if count == 1:
        return [gguf_name(text)]
    return [f"{_stem(text)}-{number:05d}-of-{count:05d}{_SUFFIX}" for number in range(1, count + 1)]


def weights_names(name: str) -> list[str]:
    """Return the names of a model's files by the file name of its weights, or of any part of them, on the server."""
    split = parse_split(name)
    return [gguf_name(name)] if split is None else part_names(split.prefix, split.count)


def _stem(text: str) -> str:
    if text.lower().endswith(_SUFFIX):
        text = text[: -len(_SUFFIX)]
    return _OTHER.sub("-", text).strip(".-")[:_MAX_STEM] or "model"
