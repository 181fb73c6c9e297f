"""Verbose metadata: arrays and tensors of a header."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from corral_core.base.errors import GGUFError
from corral_core.weights.gguf import KEPT_ELEMENTS
from corral_core.weights.gguf_details import VerboseMetadata, read_verbose_metadata
from tests.support.gguf_files import ARRAY, F32, LLAMA, TypedValue, Value, gguf_bytes


def _verbose(folder: Path, **values: Value) -> VerboseMetadata:
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes({**LLAMA, **values}))
    return read_verbose_metadata(path)


def test_arrays_of_any_length_have_their_items(tmp_path: Path) -> None:
    many = [f"t{number}" for number in range(KEPT_ELEMENTS + 1)]
    arrays = _verbose(tmp_path, many=many).arrays
    assert arrays == {"tokenizer.ggml.tokens": ["<s>", "</s>", "a", "b"], "many": many}


def test_numbers_have_a_json_form(tmp_path: Path) -> None:
    scores = TypedValue(ARRAY, [0.1, -1e-5, math.inf], item=F32)
    nested = TypedValue(ARRAY, [TypedValue(ARRAY, [1, 2])], item=ARRAY)
    arrays = _verbose(tmp_path, scores=scores, nested=nested).arrays
    assert (arrays["scores"], arrays["nested"]) == ([0.1, -1e-5, None], [[1, 2]])
    json.dumps(arrays, allow_nan=False)


def test_tensors_keep_the_order_and_shape_of_the_file(tmp_path: Path) -> None:
    assert _verbose(tmp_path).tensors_json() == [
        {"name": "token_embd.weight", "type": "Q8_0", "shape": [32, 4]},
        {"name": "output_norm.weight", "type": "F32", "shape": [32]},
    ]


def test_other_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(GGUFError):
        read_verbose_metadata(tmp_path / "model.gguf")
