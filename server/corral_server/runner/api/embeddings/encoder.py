"""Encoding of embeddings in the formats of the three endpoints.

A 32-bit float is written with nine significant digits, which restore it exactly.
"""

from __future__ import annotations

import base64
import functools
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner.api.response import RequestTimes
from corral_server.runner.engine.embedding import Vector, normalize
from corral_server.wire.json_encoding import compact_json


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """The vectors of one request. ``prompt_tokens`` counts all inputs; ``dimensions`` 0 means all."""

    model: str
    vectors: Sequence[Vector]
    prompt_tokens: int
    dimensions: int
    times: RequestTimes

    def truncated_vectors(self) -> list[Vector]:
        """Return the vectors cut to ``dimensions`` and normalized to length 1 again."""
        size = self.dimensions
        return [normalize(vector[:size]) if 0 < size < len(vector) else vector for vector in self.vectors]


def encode_embed(result: EmbeddingResult) -> bytes:
    """Encode the response of ``/api/embed``. Metrics of zero are omitted, as in Ollama; without inputs all are."""
    texts = ",".join(_json_numbers(vector) for vector in result.truncated_vectors())
    head = f'{{"model":{compact_json(result.model)},"embeddings":[{texts}]'
    if result.vectors:
        times = result.times
        total, load = time.monotonic_ns() - times.requested_ns, times.received_ns - times.requested_ns
        head += f',"total_duration":{total},"load_duration":{load}'
    return (head + (f',"prompt_eval_count":{result.prompt_tokens}' if result.prompt_tokens else "") + "}").encode()


def encode_embeddings(result: EmbeddingResult) -> bytes:
    """Encode the response of ``/api/embeddings``: one vector of doubles."""
    vector = list(result.vectors[0]) if result.vectors else []
    return compact_json({"embedding": vector}).encode()


def encode_openai(result: EmbeddingResult, *, packed: bool) -> bytes:
    """Encode the response of ``/v1/embeddings``. ``packed`` vectors are base64 of little-endian 32-bit floats."""
    entries = ",".join(
        f'{{"object":"embedding","embedding":{_base64(vector) if packed else _json_numbers(vector)},"index":{index}}}'
        for index, vector in enumerate(result.truncated_vectors())
    )
    model = compact_json(result.model)
    usage = f'{{"prompt_tokens":{result.prompt_tokens},"total_tokens":{result.prompt_tokens}}}'
    return f'{{"object":"list","data":[{entries}],"model":{model},"usage":{usage}}}'.encode()


def _json_numbers(vector: Vector) -> str:
    return _format_string(len(vector)) % tuple(vector)


@functools.lru_cache(maxsize=8)
def _format_string(size: int) -> str:
    return "[" + ",".join(["%.9g"] * size) + "]"


def _base64(vector: Vector) -> str:
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return f'"{base64.b64encode(vector.tobytes()).decode()}"'
