"""Projector: the GGUF file with the part of a vision model that turns images into embeddings (llama.cpp's mtmd).

Of the header only what the memory estimate and /api/show need is read. The weights are exact. The compute buffer is a
formula, because llama.cpp plans it with the first image only (``clip_image_batch_encode`` in ``tools/mtmd/clip.cpp``):
the states of all patches of the largest image that the model takes, with flash attention, which a CPU always has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corral_core.base.errors import GGUFError
from corral_core.weights.gguf import GGUFHeader, read_header
from corral_core.weights.header_numbers import HeaderNumbers

ARCHITECTURE: Final = "clip"
"""Architecture of all projectors; Ollama lists it in the families of a model with one."""
_MAX_TOKENS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger", "ling3vl", "glm4v"), 4096),
    **dict.fromkeys(("kimik25", "muse-glimmer"), 4096),
    **dict.fromkeys(("gemma4v", "gemma4uv"), 1120),
    **dict.fromkeys(("pixtral", "kimivl"), 1024),
    "minimax_m3": 576,
    "lfm2": 256,
    "youtuvl": 62_500,
}
"""Tokens of the largest image by ``clip.projector_type``, where an image keeps its size: ``set_limit_image_tokens`` in
``clip.cpp``."""
_UNSUPPORTED: Final = frozenset({"deepseek4v", "hunyuanvl"})
"""Types whose embeddings depend on the place of an image among the images of a prompt, or on the tokens before it
(``mtmd.cpp``). Images are encoded one by one here, so that an image of several prompts is encoded once."""
_MERGE: Final = 2
"""Patches of a token on each side, where the header does not say it."""
_STATES: Final = 6
"""States of a patch at once: residual, normalized, query, key, value, and the result of the attention."""
_FIXED: Final = 8 << 20
_MAX_PIXELS: Final = 1 << 24
"""Pixels of a request's image at most, by default; llama.cpp does not scale images up."""
_MAX_RESULT: Final = 2**53 - 1


@dataclass(frozen=True, slots=True)
class ProjectorMetadata:
    """``weights`` and ``compute`` are bytes."""

    weights: int
    compute: int
    header: GGUFHeader = field(repr=False)


def read_projector(path: Path) -> ProjectorMetadata:
    """Read the header of a projector. Raises GGUFError, whose text names the file."""
    return projector_from_header(read_header(path), str(path))


def projector_from_header(header: GGUFHeader, name: str) -> ProjectorMetadata:
    """Raises GGUFError if the file is not a projector that encodes images."""
    if header.get_str("general.architecture") != ARCHITECTURE:
        raise GGUFError(f"{name} is not a projector: its architecture is not {ARCHITECTURE}")
    if header.values.get(f"{ARCHITECTURE}.has_vision_encoder") is not True:
        raise GGUFError(f"{name} is a projector that does not encode images, such as one for audio")
    if not _kind(header):
        raise GGUFError(f"{name} cannot be loaded: it lacks clip.projector_type; use a projector made for llama.cpp")
    if _kind(header) in _UNSUPPORTED:
        raise GGUFError(f"{name} cannot be used: projectors of the type {_kind(header)} are not supported")
    return ProjectorMetadata(min(header.tensor_bytes, _MAX_RESULT), min(_compute(header), _MAX_RESULT), header)


def _kind(header: GGUFHeader) -> str:
    """Return the type; a file that encodes images and audio has one for each."""
    return header.get_str(f"{ARCHITECTURE}.vision.projector_type") or header.get_str(f"{ARCHITECTURE}.projector_type")


def _compute(header: GGUFHeader) -> int:
    numbers = HeaderNumbers(header)
    side = numbers.number("vision.patch_size") or 1
    pixels = _pixels(header, numbers, side)
    patches = pixels // side**2 + 1
    states = _STATES * numbers.number("vision.embedding_length") + 2 * numbers.number("vision.feed_forward_length")
    return 4 * (patches * states + 2 * 3 * pixels) + _FIXED


def _pixels(header: GGUFHeader, numbers: HeaderNumbers, side: int) -> int:
    """Return the pixels of the largest image that is encoded at once."""
    tokens = _MAX_TOKENS.get(_kind(header), 0)
    merge = numbers.number("vision.spatial_merge_size") or numbers.number("vision.projector.scale_factor") or _MERGE
    square = numbers.number("vision.image_size") ** 2
    largest = max(tokens * (side * merge) ** 2, numbers.number("vision.image_max_pixels"))
    return max(square, min(largest, _MAX_PIXELS))
