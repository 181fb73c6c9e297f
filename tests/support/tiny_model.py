"""Model of 400 KB with byte tokens and random weights that generates thousands of tokens per second.

For tests and benchmarks that do not depend on the generated text, which is meaningless.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping
from pathlib import Path

from tests.support.gguf_files import ARRAY, I32, FakeTensor, TypedValue, Value, gguf_bytes

EMBEDDING, HEADS, INNER, LAYERS = 64, 4, 96, 2
BOS, EOS = "<s>", "</s>"
TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


def write_tiny_model(
    folder: Path, *, context_length: int = 2048, seed: int = 1, overrides: Mapping[str, Value] = {}
) -> Path:
    """Write the model; ``overrides`` replace values of its metadata, by invalid ones too."""
    path = folder / "tiny.gguf"
    path.write_bytes(gguf_bytes({**_values(context_length), **overrides}, _tensors(random.Random(seed))))
    return path


def tokenizer_values() -> dict[str, Value]:
    """Return the keys of the tokenizer, which has 259 tokens."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*(_as_text(byte) for byte in range(256)), "th", BOS, EOS],
        "tokenizer.ggml.token_type": TypedValue(ARRAY, [1] * 257 + [3, 3], I32),
        "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.bos_token_id": 257,
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.chat_template": TEMPLATE,
    }


def _values(context: int) -> dict[str, Value]:
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
        **tokenizer_values(),
    }


def _as_text(byte: int) -> str:
    """Return GPT-2's character for a byte: printable bytes map to themselves, others to code points above 255."""
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
