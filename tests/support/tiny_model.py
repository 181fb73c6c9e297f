"""A whole model of four hundred kilobytes: bytes as tokens, random weights. Nonsense, thousands of tokens a second.

For tests and measurements of what surrounds the decoding, not of what is said.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping
from pathlib import Path

from tests.support.gguf_files import ARRAY, I32, FakeTensor, Typed, Value, gguf_bytes

EMBEDDING, HEADS, INNER, LAYERS = 64, 4, 96, 2
BOS, EOS = "<s>", "</s>"
TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


def write(folder: Path, *, context: int = 2048, seed: int = 1, change: Mapping[str, Value] = {}) -> Path:
    """``change`` are values of the header that are others, perhaps senseless ones."""
    path = folder / "tiny.gguf"
    path.write_bytes(gguf_bytes({**_values(context), **change}, _tensors(random.Random(seed))))
    return path


def _values(context: int) -> dict[str, Value]:
    tokens = [*(_as_text(byte) for byte in range(256)), "th", BOS, EOS]
    return {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "llama.block_count": LAYERS,
        "llama.context_length": context,
        "llama.embedding_length": EMBEDDING,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": EMBEDDING // HEADS,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": Typed(ARRAY, [1] * 257 + [3, 3], I32),
        "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.bos_token_id": 257,
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.chat_template": TEMPLATE,
    }


def _as_text(byte: int) -> str:
    """GPT-2's letters for bytes: printable ones stand for themselves, others move above 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + [other for other in range(256) if other not in printable].index(byte))


def _tensors(draw: random.Random) -> list[FakeTensor]:
    def matrix(name: str, columns: int, rows: int) -> FakeTensor:
        data = array("f", (draw.gauss(0, columns**-0.5) for _ in range(columns * rows)))
        return FakeTensor(f"{name}.weight", (columns, rows), data=data.tobytes())

    def ones(name: str) -> FakeTensor:
        return FakeTensor(f"{name}.weight", (EMBEDDING,), data=array("f", [1.0] * EMBEDDING).tobytes())

    tensors = [matrix("token_embd", EMBEDDING, 259), ones("output_norm"), matrix("output", EMBEDDING, 259)]
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        tensors += [ones(block + "attn_norm"), ones(block + "ffn_norm")]
        tensors += [matrix(block + name, EMBEDDING, EMBEDDING) for name in ("attn_q", "attn_k", "attn_v")]
        tensors.append(matrix(block + "attn_output", EMBEDDING, EMBEDDING))
        tensors += [matrix(block + name, EMBEDDING, INNER) for name in ("ffn_gate", "ffn_up")]
        tensors.append(matrix(block + "ffn_down", INNER, EMBEDDING))
    return tensors
