"""The sizes that a runner's memory follows from, read from headers that may lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.gguf import read_header
from corral_core.shape import Shape, shape_of
from tests.support.gguf_files import I32, LLAMA, U64, FakeTensor, Typed, Value, gguf_bytes

ARRAY = 9


def _shape(folder: Path, values: Mapping[str, Value], *, without: str = "") -> Shape:
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes({key: value for key, value in {**LLAMA, **values}.items() if key != without}))
    return shape_of(read_header(path))


def _numbers(*items: int) -> Typed:
    return Typed(ARRAY, list(items), item=I32)


def test_a_head_is_the_embedding_over_the_heads_unless_the_header_says(tmp_path: Path) -> None:
    assert _shape(tmp_path, {"llama.block_count": 2}).keys == 2 * 4 * 8
    assert _shape(tmp_path, {"llama.block_count": 2, "llama.attention.key_length": 16}).keys == 2 * 4 * 16


def test_keys_and_values_count_the_heads_of_each_layer(tmp_path: Path) -> None:
    shape = _shape(
        tmp_path,
        {
            "llama.block_count": 3,
            "llama.attention.head_count_kv": _numbers(2, 0, 4),
            "llama.attention.key_length": 16,
            "llama.attention.value_length": 8,
        },
    )
    assert (shape.keys, shape.values, shape.key_value) == (6 * 16, 6 * 8, 4 * 24)


def test_layers_without_heads_keep_a_state(tmp_path: Path) -> None:
    ssm = {"conv_kernel": 4, "inner_size": 64, "state_size": 16, "group_count": 1}
    values: dict[str, Value] = {f"llama.ssm.{key}": number for key, number in ssm.items()}
    values |= {"llama.block_count": 3, "llama.attention.head_count_kv": _numbers(2, 0, 0)}
    assert _shape(tmp_path, values).state == 2 * (3 * (64 + 2 * 16) + 16 * 64)


def test_weights_are_the_bytes_of_the_tensors_in_their_types(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(LLAMA, [FakeTensor("a", (64, 3), 2), FakeTensor("b", (10,))]))
    assert shape_of(read_header(path)).weights == 6 * 18 + 40


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "attention.head_count", "attention.key_length"])
@pytest.mark.parametrize("number", [Typed(U64, 2**64 - 1), Typed(I32, -1), "many", 0])
def test_what_makes_no_sense_counts_as_nothing(tmp_path: Path, key: str, number: Value) -> None:
    shape = _shape(tmp_path, {f"llama.{key}": number})
    assert Shape.from_json(json.loads(json.dumps(shape.to_json()))) == shape


def test_the_largest_numbers_still_fit_json(tmp_path: Path) -> None:
    most = 2**24
    keys = ["embedding_length", "attention.head_count", "attention.key_length", "attention.value_length"]
    keys += ["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.group_count"]
    values: dict[str, Value] = {f"llama.{key}": most for key in keys}
    shape = _shape(tmp_path, {**values, "llama.block_count": most})
    assert max(int(str(size)) for size in shape.to_json().values()) < 2**53


def test_a_shape_that_lacks_a_number_is_none() -> None:
    told = Shape(1).to_json()
    del told["keyValue"]
    with pytest.raises(ValueError, match="keyValue"):
        Shape.from_json(told)
