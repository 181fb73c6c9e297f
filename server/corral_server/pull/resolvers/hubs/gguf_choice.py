"""Choice of the GGUF files in a repository, by the rules of llama.cpp's ``-hf`` option.

The rules are those of ``common/download.cpp`` (``find_best_model``, ``get_split_files``, ``find_best_sibling``):

- A weights file ends in ``.gguf`` and its name has none of ``NOT_WEIGHTS``: projectors, importance matrices and draft
  models for speculative decoding.
- A quantization matches a file whose path contains it, without regard to case, followed by ``.`` or ``-``.
- Without a quantization the first match of Q4_K_M is chosen, then of Q8_0, then the first weights file.
- Of a split file all parts are chosen, and only the first part is a candidate.
- The projector is a ``.gguf`` file with ``mmproj`` in its path, in the folder of the weights or in one that contains
  it: the deepest folder first, then the smallest difference in bits per weight, then the first in the list.

Four additions: of projectors, F16 is preferred to BF16, which many processors compute slowly; a file in which the
quantization is a whole word is preferred, so that ``F16`` is not ``BF16``; a file name is accepted in place of a
quantization, as by Hugging Face's registry for Ollama (https://huggingface.co/docs/hub/ollama); and a split file
without all of its parts is an error.
``preset.ini``, with which llama.cpp configures its server for several models, is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from corral_server.pull.resolvers.split_files import parse_split

NOT_WEIGHTS: Final = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
PROJECTOR: Final = "mmproj"
DEFAULT_QUANTIZATIONS: Final = ("Q4_K_M", "Q8_0")
DEFAULT_TAG: Final = "latest"
"""Ollama's tag for a name without one; it stands for no quantization, unless a file matches it."""
_OTHER_FORMATS: Final = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".mlx", ".ggml")
_SHOWN: Final = 30
"""Names in an error."""

_TAG: Final = re.compile(r"[-.]([A-Za-z0-9_]+)\Z")
_DIGITS: Final = re.compile("[0-9]{1,6}")


class NoMatchingFile(ValueError):
    """A repository without the wanted file; the text lists those that it has."""


class NoGGUFFile(NoMatchingFile):
    """A repository without any GGUF weights."""


@dataclass(frozen=True, slots=True)
class GGUFChoice:
    """Paths in the repository: the parts of the weights in order, and the projector if there is one."""

    weights: tuple[str, ...]
    projector: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All chosen paths, weights first."""
        return self.weights if self.projector is None else (*self.weights, self.projector)


def choose_gguf(paths: Sequence[str], *, quantization: str | None = None, path: str | None = None) -> GGUFChoice:
    """Choose the files of a model among the paths of a repository, in the order in which the hub lists them.

    ``path`` is the path of a weights file or of one of its parts, without regard to case. Raises NoMatchingFile.
    """
    if not any(_is_gguf(candidate) for candidate in paths):
        raise NoGGUFFile(_no_gguf(paths))
    first = _named(paths, path) if path is not None else _best(paths, quantization)
    weights = _all_parts(paths, first)
    return GGUFChoice(weights, _projector(paths, weights))


def quantizations(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the quantizations of the weights files, each once; the file's name where it has none."""
    found = dict.fromkeys(_tag(path) or _name(path) for path in paths if _is_candidate(path))
    return tuple(found)


def quantization_bits(path: str) -> int:
    """Return the first number in the quantization of a path: 4 for Q4_K_M, 16 for BF16, 0 if there is none."""
    match = _DIGITS.search(_tag(path))
    return int(match[0]) if match else 0


def _best(paths: Sequence[str], quantization: str | None) -> str:
    candidates = [path for path in paths if _is_candidate(path)]
    if not candidates:
        raise NoGGUFFile(f"the repository has no GGUF weights, only {_ggufs(paths)}")
    for wanted in (quantization,) if quantization else DEFAULT_QUANTIZATIONS:
        found = _first_match(candidates, wanted)
        if found is not None:
            return found
    if quantization and quantization.lower() != DEFAULT_TAG:
        raise NoMatchingFile(
            f"the repository has no quantization {quantization!r}; it has {_listed(quantizations(candidates))}"
        )
    return candidates[0] if not quantization else _best(candidates, None)


def _first_match(candidates: Sequence[str], wanted: str) -> str | None:
    by_name = (path for path in candidates if _name(path).lower() == wanted.lower())
    word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(wanted)}[.-]", re.IGNORECASE)
    anywhere = re.compile(f"{re.escape(wanted)}[.-]", re.IGNORECASE)
    by_word = (path for path in candidates if word.search(path))
    by_text = (path for path in candidates if anywhere.search(path))
    return next(by_name, None) or next(by_word, None) or next(by_text, None)


def _named(paths: Sequence[str], wanted: str) -> str:
    same = [path for path in paths if path.lower() == wanted.lower()]
    if not same:
        raise NoMatchingFile(f"the repository has no file {wanted!r}; it has {_ggufs(paths)}")
    return wanted if wanted in same else same[0]


def _all_parts(paths: Sequence[str], first: str) -> tuple[str, ...]:
    split = parse_split(first)
    if split is None:
        return (first,)
    try:
        names = split.parts()
    except ValueError as error:
        raise NoMatchingFile(f"the repository's file {first!r} cannot be pulled: {error}") from None
    by_lower = {path.lower(): path for path in reversed(paths)}
    missing = [name for name in names if name.lower() not in by_lower]
    if missing:
        text = f"the repository's file {first!r} is split into {split.count} parts, and it lacks {_listed(missing)}"
        raise NoMatchingFile(text)
    return tuple(by_lower[name.lower()] for name in names)


def _projector(paths: Sequence[str], weights: Sequence[str]) -> str | None:
    folder, bits = _folder(weights[0]), quantization_bits(weights[0])
    if PROJECTOR in _name(weights[0]):
        return None

    def distance(path: str) -> tuple[int, int, bool]:
        return -len(_folder(path)), abs(quantization_bits(path) - bits), _tag(path) == "BF16"

    candidates = [
        path
        for path in paths
        if _is_gguf(path)
        and PROJECTOR in path
        and path not in weights
        and folder[: len(_folder(path))] == _folder(path)
    ]
    return min(candidates, key=distance, default=None)


def _is_gguf(path: str) -> bool:
    return path.lower().endswith(".gguf")


def _is_candidate(path: str) -> bool:
    if not _is_gguf(path) or any(part in _name(path) for part in NOT_WEIGHTS):
        return False
    split = parse_split(path)
    return split is None or split.index == 1


def _tag(path: str) -> str:
    split = parse_split(path)
    match = _TAG.search(split.prefix if split else path[: -len(".gguf")])
    return match[1].upper() if match else ""


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _folder(path: str) -> list[str]:
    return path.split("/")[:-1]


def _no_gguf(paths: Sequence[str]) -> str:
    kinds = sorted({kind for kind in _OTHER_FORMATS for path in paths if path.lower().endswith(kind)})
    if kinds:
        return f"the repository has no GGUF file, only weights in {' and '.join(kind[1:] for kind in kinds)} format"
    return "the repository has no GGUF file" if paths else "the repository has no files"


def _ggufs(paths: Sequence[str]) -> str:
    return _listed(path for path in paths if _is_gguf(path))


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(name[:200] for name in shown[:_SHOWN]) + more
