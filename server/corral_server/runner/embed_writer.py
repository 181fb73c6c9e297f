"""How each API writes embeddings. A number of 32 bits is written with the nine digits that give it back exactly."""

from __future__ import annotations

import base64
import functools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner.answer import Times
from corral_server.runner.embedding import Vector, normalized


@dataclass(frozen=True, slots=True)
class Written:
    """What is to be written; ``count`` is the tokens of all inputs. ``dimensions`` 0 means all."""

    model: str
    vectors: Sequence[Vector]
    count: int
    dimensions: int
    times: Times

    def cut(self) -> list[Vector]:
        """The vectors with no more than the dimensions asked for, of length 1 again."""
        wanted = self.dimensions
        return [normalized(vector[:wanted]) if 0 < wanted < len(vector) else vector for vector in self.vectors]


def write_embed(written: Written) -> bytes:
    """``/api/embed``; metrics that are zero, as all are where nothing was embedded, are left out."""
    texts = ",".join(_numbers(vector) for vector in written.cut())
    head = f'{{"model":{json.dumps(written.model, ensure_ascii=False)},"embeddings":[{texts}]'
    if written.vectors:
        times = written.times
        head += f',"total_duration":{time.monotonic_ns() - times.started},"load_duration":{times.begun - times.started}'
    return (head + (f',"prompt_eval_count":{written.count}' if written.count else "") + "}").encode()


def write_embeddings(written: Written) -> bytes:
    """``/api/embeddings``: one vector of doubles."""
    vector = list(written.vectors[0]) if written.vectors else []
    return json.dumps({"embedding": vector}, separators=(",", ":")).encode()


def write_openai(written: Written, *, packed: bool) -> bytes:
    """``/v1/embeddings``; ``packed`` vectors are base64 of little-endian 32-bit floats."""
    entries = ",".join(
        f'{{"object":"embedding","embedding":{_packed(vector) if packed else _numbers(vector)},"index":{index}}}'
        for index, vector in enumerate(written.cut())
    )
    model = json.dumps(written.model, ensure_ascii=False)
    usage = f'{{"prompt_tokens":{written.count},"total_tokens":{written.count}}}'
    return f'{{"object":"list","data":[{entries}],"model":{model},"usage":{usage}}}'.encode()


def _numbers(vector: Vector) -> str:
    return _pattern(len(vector)) % tuple(vector)


@functools.lru_cache(maxsize=8)
def _pattern(size: int) -> str:
    return "[" + ",".join(["%.9g"] * size) + "]"


def _packed(vector: Vector) -> str:
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return f'"{base64.b64encode(vector.tobytes()).decode()}"'
