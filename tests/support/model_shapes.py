"""Weights of many shapes in files without content (holes), which llama.cpp loads as it does real ones.

Their vocabulary has no texts, so nothing can be asked of them, but they take the memory that real ones take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.gguf_files import FakeTensor, Value, gguf_bytes

F16 = 1


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder's widths. ``experts`` is how many there are and how many are used, ``expert`` the width of one."""

    name: str
    embedding: int
    feed_forward: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    layers: int = 2
    experts: tuple[int, int] = (0, 0)
    expert: int = 0
    window: int = 0


def write(folder: Path, shape: Architecture) -> Path:
    tensors = [*_outer(shape), *(tensor for layer in range(shape.layers) for tensor in _layer(shape, f"blk.{layer}."))]
    header = gguf_bytes(_values(shape), tensors, data=False)
    path = folder / f"{shape.name}.gguf"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(sum(-(-size // 32) * 32 for size in (len(header), *(tensor.size for tensor in tensors))))
    return path


def _values(shape: Architecture) -> Mapping[str, Value]:
    numbers = {
        "vocab_size": shape.vocabulary,
        "block_count": shape.layers,
        "context_length": 131072,
        "embedding_length": shape.embedding,
        "feed_forward_length": shape.feed_forward,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head,
        "attention.value_length": shape.head,
        "rope.dimension_count": shape.head,
        "expert_count": shape.experts[0],
        "expert_used_count": shape.experts[1],
        "expert_feed_forward_length": shape.expert,
        "attention.sliding_window": shape.window,
    }
    fixed: dict[str, Value] = {
        "general.architecture": shape.name,
        "tokenizer.ggml.model": "none",
        f"{shape.name}.attention.layer_norm_rms_epsilon": 1e-5,
    }
    return fixed | {f"{shape.name}.{key}": number for key, number in numbers.items() if number}


def _outer(shape: Architecture) -> list[FakeTensor]:
    size = (shape.embedding, shape.vocabulary)
    return [FakeTensor("token_embd.weight", size, F16), FakeTensor("output_norm.weight", (shape.embedding,))]


def _layer(shape: Architecture, block: str) -> list[FakeTensor]:
    width, inner = shape.embedding, shape.feed_forward
    query, key = shape.heads * shape.head, shape.kv_heads * shape.head
    matrices = {"attn_q": (width, query), "attn_k": (width, key), "attn_v": (width, key), "attn_output": (query, width)}
    vectors = {"attn_norm": width, "ffn_norm": width}
    if shape.name.startswith(("qwen3", "gemma3")):
        vectors |= {"attn_q_norm": shape.head, "attn_k_norm": shape.head}
    if shape.name.startswith("gemma"):
        vectors |= {"post_attention_norm": width, "post_ffw_norm": width}
    if shape.experts[0]:
        matrices["ffn_gate_inp"] = (width, shape.experts[0])
    else:
        matrices |= {"ffn_gate": (width, inner), "ffn_up": (width, inner), "ffn_down": (inner, width)}
    experts: dict[str, tuple[int, ...]] = {}
    if shape.experts[0]:
        inner, count = shape.expert or inner, shape.experts[0]
        experts = {"ffn_gate_exps": (width, inner, count), "ffn_up_exps": (width, inner, count)}
        experts["ffn_down_exps"] = (inner, width, count)
    return [
        *(FakeTensor(f"{block}{name}.weight", (size,)) for name, size in vectors.items()),
        *(
            FakeTensor(f"{block}{name}.weight", size, 0 if name == "ffn_gate_inp" else F16)
            for name, size in (matrices | experts).items()
        ),
    ]
