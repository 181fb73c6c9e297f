"""Sparse GGUF files with the dimensions of real models, which llama.cpp can load.

The vocabulary has no strings, so they cannot generate text, but they use as much memory as real models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.gguf_files import FakeTensor, Value
from tests.support.real_models import write_sparse

F16 = 1


@dataclass(frozen=True, slots=True)
class Architecture:
    """Dimensions of a decoder; ``experts`` is (experts, experts per token), ``expert`` the width of an expert."""

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


def write_sparse_gguf(folder: Path, architecture: Architecture) -> Path:
    tensors = [
        *_outer_tensors(architecture),
        *(tensor for layer in range(architecture.layers) for tensor in _layer_tensors(architecture, f"blk.{layer}.")),
    ]
    return write_sparse(folder / f"{architecture.name}.gguf", _metadata(architecture), tensors)


def _metadata(architecture: Architecture) -> Mapping[str, Value]:
    numbers = {
        "vocab_size": architecture.vocabulary,
        "block_count": architecture.layers,
        "context_length": 131072,
        "embedding_length": architecture.embedding,
        "feed_forward_length": architecture.feed_forward,
        "attention.head_count": architecture.heads,
        "attention.head_count_kv": architecture.kv_heads,
        "attention.key_length": architecture.head,
        "attention.value_length": architecture.head,
        "rope.dimension_count": architecture.head,
        "expert_count": architecture.experts[0],
        "expert_used_count": architecture.experts[1],
        "expert_feed_forward_length": architecture.expert,
        "attention.sliding_window": architecture.window,
    }
    fixed: dict[str, Value] = {
        "general.architecture": architecture.name,
        "tokenizer.ggml.model": "none",
        f"{architecture.name}.attention.layer_norm_rms_epsilon": 1e-5,
    }
    return fixed | {f"{architecture.name}.{key}": number for key, number in numbers.items() if number}


def _outer_tensors(architecture: Architecture) -> list[FakeTensor]:
    size = (architecture.embedding, architecture.vocabulary)
    return [FakeTensor("token_embd.weight", size, F16), FakeTensor("output_norm.weight", (architecture.embedding,))]


def _layer_tensors(architecture: Architecture, block: str) -> list[FakeTensor]:
    width, inner = architecture.embedding, architecture.feed_forward
    query, key = architecture.heads * architecture.head, architecture.kv_heads * architecture.head
    matrices = {"attn_q": (width, query), "attn_k": (width, key), "attn_v": (width, key), "attn_output": (query, width)}
    vectors = {"attn_norm": width, "ffn_norm": width}
    if architecture.name.startswith(("qwen3", "gemma3")):
        vectors |= {"attn_q_norm": architecture.head, "attn_k_norm": architecture.head}
    if architecture.name.startswith("gemma"):
        vectors |= {"post_attention_norm": width, "post_ffw_norm": width}
    if architecture.experts[0]:
        matrices["ffn_gate_inp"] = (width, architecture.experts[0])
    else:
        matrices |= {"ffn_gate": (width, inner), "ffn_up": (width, inner), "ffn_down": (inner, width)}
    experts: dict[str, tuple[int, ...]] = {}
    if architecture.experts[0]:
        inner, count = architecture.expert or inner, architecture.experts[0]
        experts = {"ffn_gate_exps": (width, inner, count), "ffn_up_exps": (width, inner, count)}
        experts["ffn_down_exps"] = (inner, width, count)
    return [
        *(FakeTensor(f"{block}{name}.weight", (size,)) for name, size in vectors.items()),
        *(
            FakeTensor(f"{block}{name}.weight", size, 0 if name == "ffn_gate_inp" else F16)
            for name, size in (matrices | experts).items()
        ),
    ]
