"""Rerankers for tests: a random model with the architecture and template of Qwen3's, and scores by llama.cpp alone.

Of models with a classification head after the first token, ``minilm.write_gguf(path, pooling=RANK)`` makes one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

from corral_server.runner.llama.library import C, initialize
from tests.support.gguf_files import Value, gguf_bytes
from tests.support.random_weights import EMBEDDING, HEAD, HEADS, INNER, KV_HEADS, RandomWeights
from tests.support.tiny_model import tokenizer_values

CONTEXT = 256
TEMPLATE = "<s>Query: {query}\nDocument: {document}</s>"
_RANK = 4


def write_qwen3(path: Path) -> Path:
    """Write the model, whose score is the probability of the first of two labels."""
    values: dict[str, Value] = {
        "general.architecture": "qwen3",
        "qwen3.block_count": 2,
        "qwen3.context_length": CONTEXT,
        "qwen3.embedding_length": EMBEDDING,
        "qwen3.feed_forward_length": INNER,
        "qwen3.attention.head_count": HEADS,
        "qwen3.attention.head_count_kv": KV_HEADS,
        "qwen3.attention.key_length": HEAD,
        "qwen3.attention.value_length": HEAD,
        "qwen3.attention.layer_norm_rms_epsilon": 1e-6,
        "qwen3.pooling_type": _RANK,
        "qwen3.classifier.output_labels": ["yes", "no"],
        "tokenizer.chat_template.rerank": TEMPLATE,
        **tokenizer_values(),
    }
    weights = RandomWeights()
    tensors = [*weights.outer(output=False), weights.matrix("cls.output.weight", EMBEDDING, 2)]
    for block in ("blk.0.", "blk.1."):
        tensors += weights.attention(block) + weights.dense(block)
        tensors += weights.norms(block, "attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm")
    path.write_bytes(gguf_bytes(values, tensors))
    return path


def scores_alone(path: Path, inputs: Sequence[Sequence[int]]) -> list[float]:
    """Return the score of each input, computed by llama.cpp in a batch of its own, without the runner's engine."""
    initialize()
    model = C.llama_model_load_from_file(str(path).encode(), C.llama_model_default_params())
    params = C.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = 1
    params.embeddings, params.pooling_type = True, _RANK
    context = C.llama_init_from_model(model, params)
    scores = []
    for tokens in inputs:
        array = (C.llama_token * len(tokens))(*tokens)
        C.llama_memory_clear(C.llama_get_memory(context), True)
        assert C.llama_decode(context, C.llama_batch_get_one(array, len(tokens))) == 0
        scores.append(ctypes.c_float(C.llama_get_embeddings_seq(context, 0)[0]).value)
    C.llama_free(context)
    C.llama_model_free(model)
    return scores
