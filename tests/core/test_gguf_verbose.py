"""Every array and tensor of a header, as a verbose show tells them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from corral_core.errors import GGUFError
from corral_core.gguf import KEPT_ELEMENTS
from corral_core.gguf_verbose import Verbose, read_verbose
from tests.support.gguf_files import ARRAY, F32, LLAMA, Typed, Value, gguf_bytes


def _verbose(folder: Path, **values: Value) -> Verbose:
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes({**LLAMA, **values}))
    return read_verbose(path)


def test_every_array_has_its_items_however_long(tmp_path: Path) -> None:
    many = [f"t{number}" for number in range(KEPT_ELEMENTS + 1)]
    arrays = _verbose(tmp_path, many=many).arrays
    assert arrays == {"tokenizer.ggml.tokens": ["<s>", "</s>", "a", "b"], "many": many}


def test_numbers_are_written_as_json_can(tmp_path: Path) -> None:
    scores = Typed(ARRAY, [0.1, -1e-5, math.inf], item=F32)
    nested = Typed(ARRAY, [Typed(ARRAY, [1, 2])], item=ARRAY)
    arrays = _verbose(tmp_path, scores=scores, nested=nested).arrays
    assert (arrays["scores"], arrays["nested"]) == ([0.1, -1e-5, None], [[1, 2]])
    json.dumps(arrays, allow_nan=False)


def test_the_tensors_are_in_the_files_order_and_shape(tmp_path: Path) -> None:
    assert _verbose(tmp_path).tensors_json() == [
        {"name": "token_embd.weight", "type": "Q8_0", "shape": [32, 4]},
        {"name": "output_norm.weight", "type": "F32", "shape": [32]},
    ]


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(GGUFError):
        read_verbose(tmp_path / "model.gguf")
