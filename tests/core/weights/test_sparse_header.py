"""Headers that llama.cpp plans memory from; tests/system has what it plans."""

from __future__ import annotations

import math
from pathlib import Path

from corral_core.weights.gguf import read_header
from corral_core.weights.sparse_header import sparse_header
from tests.support.gguf_files import (
    ARRAY,
    BOOL,
    F64,
    I32,
    LLAMA,
    STRING,
    U64,
    FakeTensor,
    TypedValue,
    Value,
    gguf_bytes,
)

TENSORS = [FakeTensor("token_embd.weight", (32, 4), 8), FakeTensor("blk.0.ffn_up.weight", (32, 3), 1)]


def test_numbers_and_tensors_stay_and_the_vocabulary_becomes_a_number(tmp_path: Path) -> None:
    values: dict[str, Value] = {
        **LLAMA,
        "llama.attention.head_count_kv": TypedValue(ARRAY, [2, 0], item=I32),
        "llama.pattern": TypedValue(ARRAY, [True, False], item=BOOL),
        "llama.labels": TypedValue(ARRAY, ["a", "b"], item=STRING),
        "llama.signed": TypedValue(I32, 7),
        "llama.eps": 1e-5,
        "llama.causal": False,
        "llama.wide": TypedValue(U64, 2**40),
        "llama.huge": TypedValue(F64, 1e300),
        "llama.nan": math.nan,
    }
    original, copy = tmp_path / "original.gguf", tmp_path / "copy.gguf"
    original.write_bytes(gguf_bytes(values, TENSORS))
    header = read_header(original)
    data, size = sparse_header(header, vocabulary=4)
    with copy.open("wb") as file:
        file.write(data)
        file.truncate(size)
    found = read_header(copy)
    assert [(one.name, one.shape, one.type, one.size) for one in found.tensors] == [
        (one.name, one.shape, one.type, one.size) for one in header.tensors
    ]
    kept = {key: value for key, value in header.values.items() if key.startswith("llama.")}
    for key in ("llama.wide", "llama.huge", "llama.nan"):  # out of range for llama.cpp
        del kept[key]
    general = {"general.architecture": "llama", "general.type": "model", "tokenizer.ggml.model": "none"}
    assert found.values == {**kept, **general, "llama.vocab_size": 4}
