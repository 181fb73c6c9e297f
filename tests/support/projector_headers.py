"""Headers of projectors with few tensors, for what is read without loading them."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.gguf_files import FakeTensor, Value, gguf_bytes

PROJECTOR: Mapping[str, Value] = {
    "general.architecture": "clip",
    "general.type": "mmproj",
    "general.file_type": 1,
    "clip.has_vision_encoder": True,
    "clip.projector_type": "gemma3",
    "clip.vision.embedding_length": 1152,
    "clip.vision.feed_forward_length": 4304,
    "clip.vision.image_size": 896,
    "clip.vision.patch_size": 14,
}
"""The numbers of Gemma 3."""
WEIGHTS = 4 * 14 * 14 * 3 * 64
"""Bytes of the tensors."""


def projector_bytes(**values: Value) -> bytes:
    """Build a file. ``values`` replace keys of ``clip.``, with ``__`` in place of ``.``."""
    replaced = {f"clip.{name.replace('__', '.')}": value for name, value in values.items()}
    return gguf_bytes({**PROJECTOR, **replaced}, (FakeTensor("v.patch_embd.weight", (14, 14, 3, 64)),))
