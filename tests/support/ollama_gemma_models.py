"""Gemma models in both formats; part of ``ollama_models``."""

from __future__ import annotations

from dataclasses import replace

from tests.support.gguf_files import ARRAY, BOOL, F32, I32, FakeTensor, TypedValue
from tests.support.model_pairs import Pair, Values, base_values, blocks, renamed, tensors_renamed, without
from tests.support.random_weights import (
    EMBEDDING,
    EXPERTS,
    HEAD,
    INNER,
    LAYERS,
    RandomWeights,
)


def gemma3() -> Pair:
    """Ollama's file has a tower, more tokens than embeddings, other names of keys, and lacks two."""
    weights = RandomWeights()
    keys = {"attention.key_length": HEAD, "attention.value_length": HEAD, "attention.sliding_window": 128}
    native = base_values("gemma3", **keys) | {"gemma3.rope.freq_base": 1e6, "gemma3.rope.freq_base_swa": 10_000.0}
    tensors = weights.outer(output=False) + blocks(lambda block: gemma_layer(weights, block))
    ollama = without(
        native, "gemma3.attention.layer_norm_rms_epsilon", "gemma3.rope.freq_base", "gemma3.rope.freq_base_swa"
    )
    ollama |= {"gemma3.rope.global.freq_base": 1e6, "gemma3.rope.local.freq_base": 10_000.0}
    tokens, types = native["tokenizer.ggml.tokens"], native["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, TypedValue)
    assert isinstance(types.value, list)
    ollama["tokenizer.ggml.tokens"] = [*tokens, "<image>", "<image_soft_token>"]
    ollama["tokenizer.ggml.token_type"] = TypedValue(ARRAY, [*types.value, 3, 3], I32)
    return Pair((native, tensors), (ollama, tensors + weights.tower()))


def gemma_layer(weights: RandomWeights, block: str) -> list[FakeTensor]:
    names = ("attn_norm", "attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    return [*weights.attention(block), *weights.norms(block, *names), *weights.dense(block)]


def embedding_gemma() -> Pair:
    weights = RandomWeights()
    keys: Values = {"attention.key_length": HEAD, "attention.value_length": HEAD, "attention.sliding_window": 128}
    dense: Values = {
        "dense_2_feat_in": EMBEDDING,
        "dense_2_feat_out": 80,
        "dense_3_feat_in": 80,
        "dense_3_feat_out": EMBEDDING,
    }
    common = base_values("gemma-embedding", **(keys | {"pooling_type": 1}))
    native = common | {f"gemma-embedding.{key}": value for key, value in dense.items()}
    tensors = weights.outer(output=False) + blocks(lambda block: gemma_layer(weights, block))
    tensors += [weights.matrix("dense_2.weight", EMBEDDING, 80), weights.matrix("dense_3.weight", 80, EMBEDDING)]
    names = {"dense_2.": "dense.0.", "dense_3.": "dense.1.", "output_norm.": "norm."}
    ollama = tensors_renamed(tensors, names)
    return Pair((native, tensors), (renamed(common, "gemma3"), ollama))


def gemma3n() -> Pair:
    """Ollama's file has more tokens than the layers have embeddings, and other types of tokens."""
    weights = RandomWeights()
    texts = ["<unk>", "<s>", "</s>", "<unused0>", *(f"<0x{number:02X}>" for number in range(256))]
    types = [2, 3, 3, 1, *[6] * 256]
    keys: Values = {"attention.key_length": HEAD, "attention.value_length": HEAD, "attention.sliding_window": 128}
    common = base_values("gemma3n", **keys)

    def vocabulary(tokens: list[str], kinds: list[int]) -> Values:
        scores = TypedValue(ARRAY, [-float(number) for number in range(len(tokens))], F32)
        return {
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": TypedValue(ARRAY, kinds, I32),
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        }

    rows, width = len(texts), 256
    embeddings = weights.matrix("token_embd.weight", EMBEDDING, rows)
    per_layer = weights.matrix("per_layer_token_embd.weight", width * LAYERS, rows)
    outer = [
        per_layer,
        weights.matrix("altup_proj.weight", EMBEDDING, EMBEDDING, 3),
        weights.matrix("altup_unembd_proj.weight", EMBEDDING, EMBEDDING, 3),
        weights.matrix("per_layer_model_proj.weight", EMBEDDING, width * LAYERS),
        weights.vector("per_layer_proj_norm.weight", width),
        weights.vector("output_norm.weight", EMBEDDING),
    ]
    tensors = outer + blocks(lambda block: _gemma3n_layer(weights, block, width))
    larger = weights.matrix("extra", EMBEDDING, 3).data
    assert embeddings.data is not None
    assert larger is not None
    more = replace(embeddings, shape=(EMBEDDING, rows + 3), data=embeddings.data + larger)
    native = common | vocabulary(texts, types) | {"tokenizer.ggml.model": "llama"}
    wrong = vocabulary([*texts, "<image>", "<audio>", "<end>"], [2, 3, 3, 5, *[1] * 256, 3, 3, 3])
    return Pair((native, [embeddings, *tensors]), (common | wrong, [more, *tensors, *weights.tower()]))


def _gemma3n_layer(weights: RandomWeights, block: str, width: int) -> list[FakeTensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "inp_gate": (EMBEDDING, width),
        "proj": (width, EMBEDDING),
        "altup_correct_coef": (4, 4),
        "altup_predict_coef": (4, 16),
        "altup_router": (EMBEDDING, 4),
        "laurel_l": (EMBEDDING, 64),
        "laurel_r": (64, EMBEDDING),
    }
    matrices = [weights.matrix(f"{block}{name}.weight", *shape) for name, shape in shapes.items()]
    names = ("post_norm", "altup_correct_scale", "altup_router_norm", "laurel_post_norm")
    return [*gemma_layer(weights, block), *matrices, *weights.norms(block, *names)]


def gemma4() -> Pair:
    weights = RandomWeights()
    keys: Values = {
        "attention.sliding_window": 128,
        "attention.sliding_window_pattern": TypedValue(ARRAY, [True] * 5 + [False], BOOL),
        "embedding_length_per_layer_input": 0,
        "expert_count": EXPERTS,
        "expert_used_count": 2,
        "expert_feed_forward_length": INNER,
        "rope.dimension_count": HEAD,
        "rope.dimension_count_swa": HEAD,
    }
    keys |= {f"attention.{name}": HEAD for name in ("key_length", "value_length", "key_length_swa", "value_length_swa")}
    native = base_values("gemma4", **keys) | {"tokenizer.ggml.model": "gemma4", "tokenizer.ggml.pre": "gemma4"}

    def layer(block: str) -> list[FakeTensor]:
        norms = weights.norms(block, "pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")
        scale = weights.vector(f"{block}ffn_gate_inp.scale", EMBEDDING)
        experts = [*weights.experts(block), scale, weights.vector(f"{block}ffn_down_exps.scale", EXPERTS, 0.5)]
        return [*gemma_layer(weights, block), *norms, *experts]

    outer = [*weights.outer(output=False), weights.vector("rope_freqs.weight", HEAD // 2)]
    tensors = outer + blocks(layer)
    audio = [weights.vector("a.blk.0.norm.weight", 32), weights.vector("model.vision_tower.norm.weight", 32)]
    renamed = tensors_renamed(tensors, {"ffn_down_exps.scale": "ffn_gate_inp.per_expert_scale"})
    ollama = native | {"tokenizer.ggml.model": "llama"}
    return Pair((native, tensors), (ollama, [*renamed, *weights.tower(), *audio]))
