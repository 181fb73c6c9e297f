"""Model dimensions from untrusted headers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.contracts.model_metadata import ComputeBuffer, LayerGroup, ModelDimensions
from corral_core.weights.dimensions import dimensions_from_header
from corral_core.weights.gguf import read_header
from tests.support.gguf_files import I32, LLAMA, U64, FakeTensor, TypedValue, Value, gguf_bytes

ARRAY = 9


def _shape(folder: Path, values: Mapping[str, Value], *, without: str = "") -> ModelDimensions:
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes({key: value for key, value in {**LLAMA, **values}.items() if key != without}))
    return dimensions_from_header(read_header(path))


def _numbers(*items: int) -> TypedValue:
    return TypedValue(ARRAY, list(items), item=I32)


def test_head_width_defaults_to_embedding_divided_by_heads(tmp_path: Path) -> None:
    assert _shape(tmp_path, {"llama.block_count": 2}).keys == 2 * 4 * 8
    assert _shape(tmp_path, {"llama.block_count": 2, "llama.attention.key_length": 16}).keys == 2 * 4 * 16


def test_keys_and_values_sum_the_heads_of_all_layers(tmp_path: Path) -> None:
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


def test_layers_without_heads_are_recurrent(tmp_path: Path) -> None:
    ssm = {"conv_kernel": 4, "inner_size": 64, "state_size": 16, "group_count": 1}
    values: dict[str, Value] = {f"llama.ssm.{key}": number for key, number in ssm.items()}
    values |= {"llama.block_count": 3, "llama.attention.head_count_kv": _numbers(2, 0, 0)}
    shape = _shape(tmp_path, values)
    assert (shape.state, shape.layer_state, shape.recurrent) == (2 * 1312, 1312, 96)


def test_weights_are_the_bytes_of_all_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(LLAMA, [FakeTensor("a", (64, 3), 2), FakeTensor("b", (10,))]))
    assert dimensions_from_header(read_header(path)).weights == 6 * 18 + 40


@pytest.mark.parametrize("key", ["block_count", "embedding_length", "attention.head_count", "attention.key_length"])
@pytest.mark.parametrize("number", [TypedValue(U64, 2**64 - 1), TypedValue(I32, -1), "many", 0])
def test_out_of_range_number_counts_as_zero(tmp_path: Path, key: str, number: Value) -> None:
    shape = _shape(tmp_path, {f"llama.{key}": number})
    assert ModelDimensions.from_json(json.loads(json.dumps(shape.to_json()))) == shape


def test_largest_numbers_fit_into_json(tmp_path: Path) -> None:
    most = 2**24
    keys = ["embedding_length", "attention.head_count", "attention.key_length", "attention.value_length"]
    keys += ["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.group_count"]
    values: dict[str, Value] = {f"llama.{key}": most for key in keys}
    shape = _shape(tmp_path, {**values, "llama.block_count": most})
    assert max(int(size) for size in re.findall(r"\d+", json.dumps(shape.to_json()))) < 2**53


def test_dimensions_without_a_number_are_rejected() -> None:
    told = ModelDimensions(1).to_json()
    del told["keyValue"]
    with pytest.raises(ValueError, match="keyValue"):
        ModelDimensions.from_json(told)


@pytest.mark.parametrize(
    "buffers",
    [None, {}, [1], [{}], [{"kvCacheType": "f16"}], "too many", [{"kvCacheType": "x" * 17}], [{"kvCacheType": 1}]],
)
def test_compute_buffers_that_are_none_are_rejected(buffers: object) -> None:
    told = ModelDimensions(1).to_json()
    many = [ComputeBuffer(1, "f16", 512, 1).to_json()] * 17
    with pytest.raises(ValueError, match=r"compute buffer|model dimensions"):
        ModelDimensions.from_json({**told, "computeBuffers": many if buffers == "too many" else buffers})


def test_layers_of_the_same_size_are_grouped(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tensors = [FakeTensor(f"blk.{layer}.attn_q.weight", (32 if layer else 64,)) for layer in range(3)]
    path.write_bytes(gguf_bytes({**LLAMA, "llama.block_count": 3}, [*tensors, FakeTensor("output.weight", (64,))]))
    shape = dimensions_from_header(read_header(path))
    assert shape.layer_groups == (LayerGroup(1, 256, 0, 32, 32), LayerGroup(2, 128, 0, 32, 32))
    assert (shape.input_weights, shape.output_weights) == (0, 256)


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ("none", "no list"),
        ([LayerGroup(1, 1).to_json()] * 129, "more than 128"),
        ([LayerGroup(513, 1).to_json()], "512 layers"),
        ([1], "not an object"),
        ([{"count": -1}], "'count'"),
    ],
)
def test_groups_of_layers_in_a_status_are_bounded(groups: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ModelDimensions.from_json({**ModelDimensions(1).to_json(), "layerGroups": groups})
