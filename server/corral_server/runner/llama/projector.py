"""Projector: the part of a vision model that turns images into embeddings, in llama.cpp's mtmd library.

mtmd prepares an image (scaling, tiles) and encodes it; the embeddings are decoded by ``LlamaContext`` like tokens. No
text goes through mtmd, so there is no marker in a text that stands for an image.

Invariants:

- mtmd gets raw pixels only: its decoder of image files (stb) never sees a client's file;
- one thread at a time encodes; preparing is safe from any thread (``mtmd.h``).
"""

from __future__ import annotations

import ctypes
import importlib
from functools import cache
from pathlib import Path
from typing import Any

from corral_server.runner.llama import log
from corral_server.runner.llama.devices import Device
from corral_server.runner.llama.errors import EngineFailed, InvalidPrompt, LoadFailed
from corral_server.runner.llama.library import C, log_to_python
from corral_server.runner.llama.model import LlamaModel

_IMAGE = 1
"""Value of mtmd's ``enum mtmd_input_chunk_type``."""
Embeddings = Any
"""A ctypes array of float32: rows of ``Projector.embedding_size`` numbers."""


@cache
def mtmd() -> Any:
    """Return the library; imported with the first projector. Raises LoadFailed."""
    try:
        library = importlib.import_module("llama_cpp.mtmd_cpp")
    except (OSError, RuntimeError, FileNotFoundError) as error:
        raise LoadFailed(f"llama.cpp was built without mtmd, which encodes images: {error}") from error
    library.mtmd_helper_log_set(log_to_python, ctypes.c_void_p(0))
    return library


class EncodableChunk:
    """One input of the encoder, with its pixels until ``drop_pixels``. ``positions`` is at most ``rows``."""

    def __init__(self, handle: object) -> None:
        """Take a copy of a chunk that belongs to mtmd."""
        self._handle = mtmd().mtmd_input_chunk_copy(handle)
        self.rows: int = mtmd().mtmd_input_chunk_get_n_tokens(self._handle)
        self.positions: int = mtmd().mtmd_input_chunk_get_n_pos(self._handle)

    @property
    def handle(self) -> object:
        return self._handle

    def drop_pixels(self) -> None:
        """Keep only what ``grid`` needs."""
        smaller = mtmd().mtmd_input_chunk_get_placeholder(self._handle)
        mtmd().mtmd_input_chunk_free(self._handle)
        self._handle = smaller

    def grid(self, start: int) -> tuple[tuple[int, ...], ...]:
        """Return the positions of the rows for M-RoPE, time, y, x and z, where ``start`` is the chunk's first."""
        tokens = mtmd().mtmd_input_chunk_get_tokens_image(self._handle)
        found = (mtmd().mtmd_decoder_pos * self.rows)()
        mtmd().mtmd_helper_image_get_decoder_pos(tokens, start, found)
        return tuple(zip(*((one.t, one.y, one.x, one.z) for one in found), strict=True))

    def __del__(self) -> None:
        if self._handle:
            mtmd().mtmd_input_chunk_free(self._handle)


class Projector:
    """A projector that fits a loaded model; freed before the model."""

    def __init__(self, path: Path, model: LlamaModel, *, threads: int, device: Device | None = None) -> None:
        """Load the file onto a GPU, or into main memory. Raises LoadFailed."""
        library = mtmd()
        params = library.mtmd_context_params_default()
        params.use_gpu, params.n_threads, params.print_timings = device is not None, threads, False
        params.device = device.handle if device is not None else None
        with log.capture() as lines:
            self._context = library.mtmd_init_from_file(str(path).encode(), model.handle, params)
        if not self._context:
            raise LoadFailed(f"{path} cannot be loaded as the projector of the model: {log.failure_reason(lines)}")
        if not library.mtmd_support_vision(self._context):
            self.close()
            raise LoadFailed(f"{path} cannot be loaded: the projector does not encode images")
        self.buffer_sizes = log.buffer_sizes(lines)
        """Bytes by kind of memory: the weights and the compute buffer for the largest image that mtmd plans for."""
        kind = device.name if device is not None else "CPU"
        self.buffer_sizes[kind] = self.buffer_sizes.get(kind, 0) + path.stat().st_size
        self.embedding_size: int = C.llama_model_n_embd_inp(model.handle)
        self.uses_mrope: bool = library.mtmd_decode_use_mrope(self._context)
        self.attends_both_ways: bool = library.mtmd_decode_use_non_causal(self._context, None)
        """Whether the rows of an image attend to each other, later ones too, so they are decoded in one batch."""

    def prepare(self, pixels: bytes, width: int, height: int) -> tuple[tuple[int, ...] | EncodableChunk, ...]:
        """Scale an image of RGB bytes and return what stands for it in a prompt: tokens, and chunks to encode.

        Raises InvalidPrompt for an image that the projector refuses.
        """
        library = mtmd()
        if width < 1 or height < 1 or len(pixels) != 3 * width * height:
            raise ValueError("the pixels do not fit the size of the image")
        data = (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels)
        bitmap = library.mtmd_bitmap_init(width, height, data)
        part = library.mtmd_input_part(None, bitmap)
        chunks = library.mtmd_input_chunks_init()
        try:
            parts = (ctypes.POINTER(library.mtmd_input_part) * 1)(ctypes.pointer(part))
            if library.mtmd_tokenize_from_parts(self._context, chunks, parts, 1, False):
                raise InvalidPrompt(f"the model cannot use an image of {width} x {height} pixels")
            found = [library.mtmd_input_chunks_get(chunks, at) for at in range(library.mtmd_input_chunks_size(chunks))]
            return tuple(_part(chunk) for chunk in found)
        finally:
            library.mtmd_input_chunks_free(chunks)
            library.mtmd_bitmap_free(bitmap)

    def encode(self, chunk: EncodableChunk) -> Embeddings:
        """Return the chunk's embeddings. Raises EngineFailed."""
        library = mtmd()
        status = library.mtmd_encode_chunk(self._context, chunk.handle)
        if status:
            raise EngineFailed(f"the image could not be encoded (status {status})")
        size = self.embedding_size * chunk.rows
        found = ctypes.cast(library.mtmd_get_output_embd(self._context), ctypes.POINTER(ctypes.c_float * size))
        return (ctypes.c_float * size).from_buffer_copy(found.contents)

    def close(self) -> None:
        if self._context:
            mtmd().mtmd_free(self._context)
            self._context = None


def _part(chunk: object) -> tuple[int, ...] | EncodableChunk:
    library = mtmd()
    if library.mtmd_input_chunk_get_type(chunk) == _IMAGE:
        return EncodableChunk(chunk)
    count = ctypes.c_size_t()
    tokens = library.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    return tuple(tokens[: count.value])
