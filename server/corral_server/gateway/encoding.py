"""Request bodies that come compressed: zstd, on OpenAI's and Anthropic's paths, as with Ollama.

The runner gets such a body plain and without its header. A small body cannot become a large one: what comes out is
bounded, and so is the memory that it takes.
"""

from __future__ import annotations

import io

import zstandard

from corral_server.gateway.messages import Request
from corral_server.wire.errors import ApiError

MAX_PLAIN = 20 * 1024 * 1024
"""Bytes of a body once it is plain."""
_MAX_WINDOW = 8 * 1024 * 1024
"""Bytes: what every decoder of zstd has to support."""
_HEADER = b"content-encoding"


def plain_body(request: Request, body: bytes) -> bytes:
    """The body as JSON parsers want it; the request loses the header. Raises ApiError 400, 413, or 503.

    Another encoding is left alone: such a body is then no JSON, which is what the client is told.
    """
    if request.encoding.strip().lower() != b"zstd" or not request.path.startswith("/v1/"):
        return body
    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        with decoder.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
            plain = reader.read(MAX_PLAIN + 1)
    except zstandard.ZstdError:
        raise ApiError(400, "failed to decompress zstd body") from None
    if len(plain) > MAX_PLAIN:
        raise ApiError(413, f"the request body is larger than {MAX_PLAIN} bytes when it is decompressed")
    if request.held is not None:
        request.held.grow(len(plain))
    request.headers = [header for header in request.headers if header[0] != _HEADER]
    return plain
