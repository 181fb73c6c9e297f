"""Small models with random weights in llama.cpp's format, and with the same weights in that of Ollama's converter.

They have six layers, since llama.cpp's graphs need a layer of each kind that the pattern of an architecture has.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace

from tests.support.gguf_files import ARRAY, F32, I32, U8, U32, FakeTensor, TypedValue
from tests.support.model_pairs import Pair, Values, base_values, blocks, renamed, tensors_renamed, without
from tests.support.ollama_gemma_models import embedding_gemma, gemma3, gemma3n, gemma4
from tests.support.ollama_recurrent_models import nemotron_h_moe, nemotron_h_omni, qwen3next, qwen35, qwen35moe
from tests.support.random_weights import (
    EMBEDDING,
    EXPERTS,
    HEAD,
    HEADS,
    INNER,
    KV_HEADS,
    LAYERS,
    RandomWeights,
)


def bert() -> Pair:
    """Ollama's file has the map of characters of the tokenizer as the characters of its Base64 form."""
    weights = RandomWeights()
    texts = ["<pad>", "</s>", "<unk>", "<s>", "\u2581", *(chr(number) for number in range(33, 127))]
    charsmap = struct.pack("<I1024s1s", 1024, b"", b"")
    common: Values = {
        "general.architecture": "bert",
        "bert.block_count": LAYERS,
        "bert.context_length": 64,
        "bert.embedding_length": EMBEDDING,
        "bert.feed_forward_length": INNER,
        "bert.attention.head_count": HEADS,
        "bert.attention.layer_norm_epsilon": 1e-5,
        "bert.attention.causal": False,
        "bert.pooling_type": 2,
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": TypedValue(ARRAY, [-float(number) for number in range(len(texts))], F32),
        "tokenizer.ggml.token_type": TypedValue(ARRAY, [3, 3, 2, 3, *[1] * (len(texts) - 4)], I32),
        "tokenizer.ggml.token_type_count": 1,
        "tokenizer.ggml.bos_token_id": 3,
        "tokenizer.ggml.eos_token_id": 1,
    }
    key = "tokenizer.ggml.precompiled_charsmap"
    native = common | {key: TypedValue(ARRAY, list(charsmap), U8)}
    ollama = common | {key: list(base64.b64encode(charsmap).decode())}
    tensors = [
        weights.matrix("token_embd.weight", EMBEDDING, len(texts)),
        weights.matrix("token_types.weight", EMBEDDING, 1),
        weights.matrix("position_embd.weight", EMBEDDING, 64),
        *_norm_with_bias(weights, "token_embd_norm"),
        *blocks(lambda block: _bert_layer(weights, block)),
    ]
    return Pair((native, tensors), (ollama, tensors))


def _norm_with_bias(weights: RandomWeights, name: str) -> list[FakeTensor]:
    return [weights.vector(f"{name}.weight", EMBEDDING), weights.vector(f"{name}.bias", EMBEDDING, 0.0)]


def _bert_layer(weights: RandomWeights, block: str) -> list[FakeTensor]:
    shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (EMBEDDING, EMBEDDING))
    shapes |= {"ffn_up": (EMBEDDING, INNER), "ffn_down": (INNER, EMBEDDING)}
    matrices = [weights.matrix(f"{block}{name}.weight", *shape) for name, shape in shapes.items()]
    biases = [weights.vector(f"{block}{name}.bias", shape[1], 0.1) for name, shape in shapes.items()]
    norms = [
        *_norm_with_bias(weights, f"{block}attn_output_norm"),
        *_norm_with_bias(weights, f"{block}layer_output_norm"),
    ]
    return [*matrices, *biases, *norms]


def glmocr() -> Pair:
    """Ollama's file has two matrices in place of one, whose rows are those of both."""
    weights = RandomWeights()
    lengths: Values = {"attention.key_length": HEAD, "attention.value_length": HEAD}
    common = base_values("glm4", **lengths)
    native = common | {"glm4.rope.dimension_count": HEAD, "tokenizer.ggml.pre": "chatglm-bpe"}
    native |= {"glm4.rope.dimension_sections": TypedValue(ARRAY, [2, 3, 3, 0], I32)}
    ollama = renamed(common, "glmocr") | {"glmocr.rope.mrope_section": TypedValue(ARRAY, [2, 3, 3], I32)}
    tensors, split = weights.outer(), list[FakeTensor]()
    for number in range(LAYERS):
        block = f"blk.{number}."
        norms = weights.norms(block, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
        gate, up, down = weights.dense(block)
        assert gate.data is not None
        assert up.data is not None
        joined = replace(up, shape=(EMBEDDING, 2 * INNER), data=gate.data + up.data)
        tensors += [*norms, *weights.attention(block), joined, down]
        split += [gate, up]
    kept = [one for one in tensors if not one.name.endswith("ffn_up.weight")]
    names = {"attn_output": "attn_out", "post_attention_norm": "post_attn_norm", "post_ffw_norm": "post_ffn_norm"}
    return Pair((native, tensors), (ollama, [*tensors_renamed(kept, names), *split, *weights.tower()]))


def deepseekocr() -> Pair:
    weights = RandomWeights()
    keys: Values = {"leading_dense_block_count": 1, "expert_count": EXPERTS, "expert_used_count": 2}
    common = base_values("deepseek2-ocr", **keys, **{"attention.head_count_kv": HEADS, "rope.dimension_count": HEAD})
    native = common | {"deepseek2-ocr.expert_feed_forward_length": INNER, "deepseek2-ocr.expert_shared_count": 1}
    ollama = renamed(without(common, "deepseek2-ocr.attention.layer_norm_rms_epsilon"), "deepseekocr")
    tensors = weights.outer()
    for number in range(LAYERS):
        block = f"blk.{number}."
        square = ("attn_q", "attn_k", "attn_v", "attn_output")
        tensors += [weights.matrix(f"{block}{name}.weight", EMBEDDING, EMBEDDING) for name in square]
        tensors += weights.norms(block, "attn_norm", "ffn_norm")
        tensors += [*weights.experts(block), *weights.shared_expert(block)] if number else weights.dense(block)
    encoder = weights.matrix("s.blk.0.weight", 32, 32)
    return Pair((native, tensors), (ollama, [*tensors, *weights.tower(), encoder]))


def laguna() -> Pair:
    weights = RandomWeights()
    keys: Values = {"leading_dense_block_count": 1, "expert_count": EXPERTS, "expert_used_count": 2}
    keys |= {"expert_feed_forward_length": INNER, "attention.sliding_window": 128, "rope.dimension_count": HEAD}
    common = base_values("laguna", **keys)
    native = common | {"laguna.rope.dimension_count_swa": HEAD // 2, "laguna.rope.freq_base_swa": 5000.0}
    ollama = common | {"laguna.rope.swa.dimension_count": HEAD // 2, "laguna.rope.swa.freq_base": 5000.0}
    tensors = weights.outer()
    for number in range(LAYERS):
        block = f"blk.{number}."
        tensors += [*weights.attention(block), weights.matrix(f"{block}attn_gate.weight", EMBEDDING, HEADS)]
        tensors += weights.norms(block, "attn_norm", "attn_q_norm", "attn_k_norm", "ffn_norm")
        bias = weights.vector(f"{block}exp_probs_b.bias", EXPERTS, 0.1)
        experts = [*weights.experts(block), *weights.shared_expert(block), bias]
        tensors += experts if number else weights.dense(block)
    return Pair((native, tensors), (ollama, tensors_renamed(tensors, {"attn_gate.weight": "attn_g.weight"})))


def gpt_oss() -> Pair:
    weights = RandomWeights()
    keys: Values = {"rope.dimension_count": HEAD, "attention.sliding_window": 128, "attention.key_length": HEAD}
    keys |= {"attention.value_length": HEAD, "expert_count": EXPERTS, "expert_used_count": 2}
    scaling: Values = {"rope.scaling.factor": 32.0, "rope.scaling.original_context_length": 512}
    common = base_values("gpt-oss", **keys, **scaling)
    native = common | {"gpt-oss.expert_feed_forward_length": INNER, "gpt-oss.rope.scaling.type": "yarn"}
    native["tokenizer.ggml.pre"] = "gpt-4o"

    def layer(block: str) -> list[FakeTensor]:
        norms = weights.norms(block, "attn_norm", "post_attention_norm")
        sinks = weights.vector(f"{block}attn_sinks.weight", HEADS, 0.5)
        return [*norms, *weights.attention(block, bias=True), sinks, *weights.experts(block, bias=True)]

    tensors = weights.outer() + blocks(layer)
    names = {"attn_output": "attn_out", "attn_sinks.weight": "attn_sinks", "post_attention_norm": "ffn_norm"}
    return Pair((native, tensors), (renamed(common, "gptoss"), tensors_renamed(tensors, names)))


def lfm2() -> Pair:
    weights = RandomWeights()
    heads = TypedValue(ARRAY, [KV_HEADS * (number % 2) for number in range(LAYERS)], U32)
    keys: Values = {"shortconv.l_cache": 3, "attention.head_count_kv": heads}
    native = base_values("lfm2", **keys)
    native["tokenizer.ggml.pre"] = "lfm2"

    def layer(number: int) -> list[FakeTensor]:
        block = f"blk.{number}."
        tensors = [*weights.norms(block, "attn_norm", "ffn_norm"), *weights.dense(block)]
        if number % 2:
            return [*tensors, *weights.attention(block), *weights.norms(block, "attn_q_norm", "attn_k_norm")]
        shapes = {"conv": (3, EMBEDDING), "in_proj": (EMBEDDING, 3 * EMBEDDING), "out_proj": (EMBEDDING, EMBEDDING)}
        return [*tensors, *(weights.matrix(f"{block}shortconv.{name}.weight", *shapes[name]) for name in shapes)]

    outer = tensors_renamed(weights.outer(output=False), {"output_norm": "token_embd_norm"})
    tensors = [*outer, *(tensor for number in range(LAYERS) for tensor in layer(number))]
    ollama = native | {"lfm2.feed_forward_length": 2 * INNER, "tokenizer.ggml.pre": "default"}
    return Pair((native, tensors), (ollama, tensors_renamed(tensors, {"token_embd_norm": "output_norm"})))


def llama4() -> Pair:
    weights = RandomWeights()
    keys: Values = {"expert_count": EXPERTS, "expert_used_count": 1, "expert_feed_forward_length": INNER}
    keys |= {"interleave_moe_layer_step": 1, "rope.dimension_count": HEAD}
    native = base_values("llama4", **keys)

    def layer(block: str) -> list[FakeTensor]:
        norms = weights.norms(block, "attn_norm", "ffn_norm")
        return [*norms, *weights.attention(block), *weights.experts(block), *weights.shared_expert(block)]

    tensors = weights.outer() + blocks(layer)
    return Pair((native, tensors), (native, tensors + weights.tower()))


def mistral3() -> Pair:
    weights = RandomWeights()
    scaling: Values = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.dimension_count": HEAD}
    scaling |= {"rope.scaling.original_context_length": 128}
    common = base_values("mistral3", **scaling)
    other: dict[str, tuple[str, float]] = {
        "rope.scaling.yarn_beta_fast": ("rope.scaling.beta_fast", 16.0),
        "rope.scaling.yarn_beta_slow": ("rope.scaling.beta_slow", 2.0),
        "rope.scaling.yarn_log_multiplier": ("rope.scaling.mscale_all_dim", 0.5),
        "attention.temperature_scale": ("rope.scaling_beta", 0.1),
    }
    native = common | {f"mistral3.{key}": TypedValue(F32, value) for key, (_, value) in other.items()}
    native["tokenizer.ggml.pre"] = "tekken"
    ollama = common | {f"mistral3.{key}": TypedValue(F32, value) for key, value in other.values()}
    ollama["tokenizer.ggml.pre"] = "default"
    tensors = weights.outer() + blocks(lambda block: _llama_layer(weights, block))
    return Pair((native, tensors), (ollama, tensors + weights.tower()))


def _llama_layer(weights: RandomWeights, block: str) -> list[FakeTensor]:
    return [*weights.attention(block), *weights.norms(block, "attn_norm", "ffn_norm"), *weights.dense(block)]


def olmo3() -> Pair:
    weights = RandomWeights()
    native = base_values("olmo2", **{"attention.sliding_window": 128})

    def layer(block: str) -> list[FakeTensor]:
        query = weights.vector(f"{block}attn_q_norm.weight", EMBEDDING)
        key = weights.vector(f"{block}attn_k_norm.weight", KV_HEADS * HEAD)
        norms = weights.norms(block, "post_attention_norm", "post_ffw_norm")
        return [*weights.attention(block), query, key, *norms, *weights.dense(block)]

    tensors = weights.outer() + blocks(layer)
    return Pair((native, tensors), (renamed(native, "olmo3"), tensors))


def qwen25vl() -> Pair:
    weights = RandomWeights()
    common = base_values("qwen2vl")
    native = common | {"qwen2vl.rope.dimension_sections": TypedValue(ARRAY, [2, 3, 3, 0], I32)}
    ollama = renamed(common, "qwen25vl") | {"qwen25vl.rope.mrope_section": TypedValue(ARRAY, [2, 3, 3], I32)}

    def layer(block: str) -> list[FakeTensor]:
        biased = [tensor for tensor in weights.attention(block, bias=True) if tensor.name != f"{block}attn_output.bias"]
        return [*biased, *weights.norms(block, "attn_norm", "ffn_norm"), *weights.dense(block)]

    tensors = weights.outer() + blocks(layer)
    return Pair((native, tensors), (ollama, tensors + weights.tower()))


def qwen3vl() -> Pair:
    weights = RandomWeights(head=64)
    return _qwen3vl("qwen3vl", weights, weights.dense, {})


def qwen3vlmoe() -> Pair:
    weights = RandomWeights(head=64)
    keys: Values = {"expert_count": EXPERTS, "expert_used_count": 2, "expert_feed_forward_length": INNER}
    return _qwen3vl("qwen3vlmoe", weights, weights.experts, keys)


def _qwen3vl(
    architecture: str, weights: RandomWeights, feed_forward: Callable[[str], list[FakeTensor]], keys: Values
) -> Pair:
    common = base_values(architecture, **keys, **{"attention.key_length": 64, "attention.value_length": 64})
    indexes = TypedValue(ARRAY, [5, 11, 17], I32)
    sections = TypedValue(ARRAY, [24, 20, 20, 0], I32)
    native = common | {f"{architecture}.rope.dimension_sections": sections, f"{architecture}.n_deepstack_layers": 3}
    ollama = common | {f"{architecture}.vision.deepstack_visual_indexes": indexes}

    def layer(block: str) -> list[FakeTensor]:
        norms = weights.norms(block, "attn_norm", "attn_q_norm", "attn_k_norm", "ffn_norm")
        return [*weights.attention(block), *norms, *feed_forward(block)]

    tensors = weights.outer() + blocks(layer)
    return Pair((native, tensors), (ollama, tensors + weights.tower()))


def glm4moelite() -> Pair:
    weights = RandomWeights()
    rank, rotated, head = 32, 8, 24
    keys: Values = {
        "leading_dense_block_count": 1,
        "attention.q_lora_rank": 48,
        "attention.kv_lora_rank": rank,
        "rope.dimension_count": rotated,
        "expert_count": EXPERTS,
        "expert_used_count": 2,
        "expert_shared_count": 1,
        "expert_feed_forward_length": INNER,
        "expert_weights_scale": 1.5,
        "expert_gating_func": 2,
    }
    common = base_values("deepseek2", **keys)
    sizes = {"key_length": rank + rotated, "value_length": rank, "key_length_mla": head, "value_length_mla": head}
    native = common | {f"deepseek2.attention.{name}": size for name, size in sizes.items()}
    native |= {"deepseek2.attention.head_count_kv": 1, "tokenizer.ggml.pre": "glm4"}
    native |= {"deepseek2.expert_group_count": 1, "deepseek2.expert_group_used_count": 1}
    swapped = {"key_length": head, "value_length": head, "key_length_mla": 40, "value_length_mla": rank}
    ollama = renamed(common, "glm4moelite") | {f"glm4moelite.attention.{name}": swapped[name] for name in swapped}
    ollama |= {"tokenizer.ggml.eos_token_ids": TypedValue(ARRAY, [258, 257], I32)}

    def layer(number: int) -> list[FakeTensor]:
        block = f"blk.{number}."
        shapes: dict[str, tuple[int, ...]] = {
            "attn_q_a": (EMBEDDING, 48),
            "attn_q_b": (48, HEADS * head),
            "attn_kv_a_mqa": (EMBEDDING, rank + rotated),
            "attn_k_b": (head - rotated, rank, HEADS),
            "attn_v_b": (rank, head, HEADS),
            "attn_output": (HEADS * head, EMBEDDING),
        }
        tensors = [weights.matrix(f"{block}{name}.weight", *shape) for name, shape in shapes.items()]
        tensors += [*weights.norms(block, "attn_norm", "ffn_norm"), weights.vector(f"{block}attn_q_a_norm.weight", 48)]
        tensors.append(weights.vector(f"{block}attn_kv_a_norm.weight", rank))
        if number == 0:
            return tensors + weights.dense(block)
        return tensors + weights.experts(block) + weights.shared_expert(block)

    tensors = weights.outer() + [tensor for number in range(LAYERS) for tensor in layer(number)]
    return Pair((native, tensors), (ollama, tensors))


PAIRS: Mapping[str, Callable[[], Pair]] = {
    "gemma3": gemma3,
    "bert": bert,
    "embedding_gemma": embedding_gemma,
    "gemma3n": gemma3n,
    "gemma4": gemma4,
    "glm4moelite": glm4moelite,
    "deepseekocr": deepseekocr,
    "glmocr": glmocr,
    "laguna": laguna,
    "nemotron_h_moe": nemotron_h_moe,
    "nemotron_h_omni": nemotron_h_omni,
    "gptoss": gpt_oss,
    "lfm2": lfm2,
    "llama4": llama4,
    "mistral3": mistral3,
    "olmo3": olmo3,
    "qwen25vl": qwen25vl,
    "qwen35": qwen35,
    "qwen35moe": qwen35moe,
    "qwen3next": qwen3next,
    "qwen3vl": qwen3vl,
    "qwen3vlmoe": qwen3vlmoe,
}
