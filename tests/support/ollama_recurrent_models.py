"""Models with recurrent layers in both formats; part of ``ollama_models``."""

from __future__ import annotations

from dataclasses import replace

from tests.support.gguf_files import ARRAY, I32, U32, FakeTensor, TypedValue
from tests.support.model_pairs import Pair, Values, base_values, renamed, tensors_renamed, without
from tests.support.random_weights import (
    EMBEDDING,
    EXPERTS,
    HEAD,
    HEADS,
    INNER,
    KV_HEADS,
    LAYERS,
    STATE,
    RandomWeights,
)


def nemotron_h_moe() -> Pair:
    native, tensors = _nemotron()
    ollama = without(native, "nemotron_h_moe.moe_latent_size")
    names = {"ffn_latent_down": "ffn_latent_in", "ffn_latent_up": "ffn_latent_out"}
    mtp = FakeTensor("mtp.layers.0.norm.weight", (32,))
    return Pair((native, tensors), (ollama, [*tensors_renamed(tensors, names), mtp]))


def nemotron_h_omni() -> Pair:
    native, tensors = _nemotron()
    towers = [*RandomWeights().tower(), FakeTensor("a.blk.0.norm.weight", (32,))]
    ollama = renamed(native, "nemotron_h_omni") | {"nemotron_h_omni.vision.block_count": 1}
    return Pair((native, tensors), (ollama, [*tensors, *towers]))


def _nemotron() -> tuple[Values, list[FakeTensor]]:
    """Return a model with two layers each of a recurrent state, of attention and of experts."""
    weights, inner, latent = RandomWeights(), 128, 32
    kinds = [number % 3 for number in range(LAYERS)]
    keys: Values = {
        "attention.head_count_kv": TypedValue(ARRAY, [KV_HEADS * (kind == 1) for kind in kinds], U32),
        "feed_forward_length": TypedValue(ARRAY, [INNER * (kind == 2) for kind in kinds], U32),
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "attention.layer_norm_epsilon": 1e-5,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": STATE,
        "ssm.time_step_rank": HEADS,
        "ssm.group_count": 2,
        "expert_count": EXPERTS,
        "expert_used_count": 2,
        "expert_shared_count": 1,
        "expert_feed_forward_length": INNER,
        "expert_shared_feed_forward_length": INNER,
        "moe_latent_size": latent,
    }
    tensors = weights.outer()
    for number, kind in enumerate(kinds):
        block = f"blk.{number}."
        tensors += weights.norms(block, "attn_norm")
        tensors += _NEMOTRON_LAYERS[kind](weights, block, inner, latent=latent)
    return base_values("nemotron_h_moe", **keys), tensors


def _recurrent(weights: RandomWeights, block: str, inner: int, *, latent: int) -> list[FakeTensor]:
    del latent
    convolved = inner + 4 * STATE
    return [
        weights.matrix(f"{block}ssm_in.weight", EMBEDDING, inner + convolved + HEADS),
        weights.matrix(f"{block}ssm_conv1d.weight", 4, convolved),
        weights.vector(f"{block}ssm_conv1d.bias", convolved, 0.1),
        weights.vector(f"{block}ssm_dt.bias", HEADS, 0.1),
        replace(weights.vector(f"{block}ssm_a", HEADS, -0.5), shape=(1, HEADS)),
        replace(weights.vector(f"{block}ssm_d", HEADS, 0.5), shape=(1, HEADS)),
        replace(weights.vector(f"{block}ssm_norm.weight", inner), shape=(inner // 2, 2)),
        weights.matrix(f"{block}ssm_out.weight", inner, EMBEDDING),
    ]


def _attention(weights: RandomWeights, block: str, inner: int, *, latent: int) -> list[FakeTensor]:
    del inner, latent
    return weights.attention(block)


def _latent_experts(weights: RandomWeights, block: str, inner: int, *, latent: int) -> list[FakeTensor]:
    del inner
    shapes: dict[str, tuple[int, ...]] = {
        "ffn_gate_inp": (EMBEDDING, EXPERTS),
        "ffn_latent_down": (EMBEDDING, latent),
        "ffn_latent_up": (latent, EMBEDDING),
        "ffn_down_exps": (INNER, latent, EXPERTS),
        "ffn_up_exps": (latent, INNER, EXPERTS),
        "ffn_down_shexp": (INNER, EMBEDDING),
        "ffn_up_shexp": (EMBEDDING, INNER),
    }
    bias = weights.vector(f"{block}exp_probs_b.bias", EXPERTS, 0.1)
    return [*(weights.matrix(f"{block}{name}.weight", *shape) for name, shape in shapes.items()), bias]


_NEMOTRON_LAYERS = (_recurrent, _attention, _latent_experts)


def _delta_keys() -> Values:
    return {
        "attention.key_length": HEAD,
        "attention.value_length": HEAD,
        "rope.dimension_count": HEAD,
        "ssm.conv_kernel": 4,
        "ssm.state_size": STATE,
        "ssm.inner_size": STATE * HEADS,
        "ssm.time_step_rank": HEADS,
        "ssm.group_count": KV_HEADS,
    }


def _delta_layer(weights: RandomWeights, number: int, *, fused: bool) -> list[FakeTensor]:
    """Return a recurrent layer, or every fourth one with attention, without its feed-forward part."""
    block, value, key = f"blk.{number}.", STATE * HEADS, STATE * KV_HEADS
    norms = weights.norms(block, "attn_norm", "post_attention_norm")
    if number % 4 == 3:
        attention = [tensor for tensor in weights.attention(block) if tensor.name != f"{block}attn_q.weight"]
        gated = weights.matrix(f"{block}attn_q.weight", EMBEDDING, 2 * HEADS * HEAD)
        return [*norms, *attention, gated, *weights.norms(block, "attn_q_norm", "attn_k_norm")]
    rates = {"ssm_ba": 2 * HEADS} if fused else {"ssm_beta": HEADS, "ssm_alpha": HEADS}
    shapes = {"attn_qkv": (EMBEDDING, 2 * key + value), "attn_gate": (EMBEDDING, value)}
    shapes |= {"ssm_conv1d": (4, 2 * key + value), "ssm_out": (value, EMBEDDING)}
    shapes |= {name: (EMBEDDING, size) for name, size in rates.items()}
    return [
        *norms,
        *(weights.matrix(f"{block}{name}.weight", *shape) for name, shape in shapes.items()),
        weights.vector(f"{block}ssm_dt.bias", HEADS, 0.1),
        weights.vector(f"{block}ssm_a", HEADS, -0.5),
        weights.vector(f"{block}ssm_norm.weight", STATE),
    ]


def _delta_pair(architecture: str, *, experts: bool, sections: bool) -> Pair:
    weights = RandomWeights()
    keys = _delta_keys()
    if experts:
        keys |= {"expert_count": EXPERTS, "expert_used_count": 2, "expert_feed_forward_length": INNER}
        keys |= {"expert_shared_feed_forward_length": INNER}
    native = base_values(architecture, **keys)
    counts = TypedValue(ARRAY, [KV_HEADS if number % 4 == 3 else 0 for number in range(LAYERS)], U32)
    ollama = native | {f"{architecture}.attention.head_count_kv": counts}
    if sections:
        native |= {f"{architecture}.rope.dimension_sections": TypedValue(ARRAY, [2, 3, 3, 0], I32)}
        ollama |= {f"{architecture}.rope.dimension_sections": TypedValue(ARRAY, [2, 3, 3], I32)}
        ollama |= {f"{architecture}.rope.mrope_interleaved": True, f"{architecture}.ssm.v_head_reordered": True}
    tensors = weights.outer()
    for number in range(LAYERS):
        block = f"blk.{number}."
        tensors += _delta_layer(weights, number, fused=not sections)
        if experts:
            gate = weights.vector(f"{block}ffn_gate_inp_shexp.weight", EMBEDDING, 0.1)
            tensors += [*weights.experts(block), gate, *weights.shared_expert(block)]
        else:
            tensors += weights.dense(block)
    renamed = tensors_renamed(tensors, {"ssm_dt.bias": "ssm_dt"})
    if sections:
        renamed += [*weights.tower(), weights.matrix("mtp.fc.weight", 2 * EMBEDDING, EMBEDDING)]
    return Pair((native, tensors), (ollama, renamed))


def qwen35() -> Pair:
    return _delta_pair("qwen35", experts=False, sections=True)


def qwen35moe() -> Pair:
    return _delta_pair("qwen35moe", experts=True, sections=True)


def qwen3next() -> Pair:
    return _delta_pair("qwen3next", experts=True, sections=False)
