"""Compressed request bodies: zstd on the OpenAI and Anthropic paths, as Ollama accepts them.

The runner gets such a body decompressed and without its content-encoding header. A small body cannot become a large
one: the size of the output is bounded, and so is the memory that decompression takes.
"""

from __future__ import annotations

import io

import zstandard

from corral_server.wire.errors import ApiError

MAX_DECOMPRESSED = 20 * 1024 * 1024
"""Bytes of a body after decompression."""
_MAX_WINDOW = 8 * 1024 * 1024
"""Bytes; every zstd decoder has to support a window of this size (RFC 8878 section 3.1.1.1.2)."""


def is_compressed(path: str, content_encoding: bytes) -> bool:
    """Whether a body is to be decompressed.

    Another encoding is left alone: such a body is not JSON, which is the error that the client gets.
    """
    return content_encoding.strip().lower() == b"zstd" and path.startswith("/v1/")


def decompress(body: bytes) -> bytes:
    """Decompress a zstd body. Raises ApiError 400 for invalid data, 413 when it is too large."""
    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        with decoder.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
            data = reader.read(MAX_DECOMPRESSED + 1)
    except zstandard.ZstdError:
        raise ApiError(400, "failed to decompress zstd body") from None
    if len(data) > MAX_DECOMPRESSED:
        raise ApiError(413, f"the request body is larger than {MAX_DECOMPRESSED} bytes when it is decompressed")
    return data
