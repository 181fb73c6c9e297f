"""Markers of weights that only Ollama can load; the headers have the keys and tensors of each kind."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.base.errors import GGUFError
from corral_core.sources.forms import HubSource
from corral_core.sources.uri import parse_source
from corral_core.weights.gguf import GGUFHeader, read_header_from
from corral_core.weights.gguf_metadata import read_metadata, read_metadata_from
from corral_core.weights.ollama.markers import _FORMATS, ollama_only
from corral_core.weights.split_header import OpenPart
from tests.support.gguf_files import ARRAY, I8, STRING, FakeTensor, TypedValue, Value, gguf_bytes
from tests.support.ollama_models import gpt_oss

VISION = ("v.blk.0.attn_q.weight", "mm.input_projection.weight")
EPSILON = {"gemma3.attention.layer_norm_rms_epsilon": 1e-6}
SECTIONS = {"rope.dimension_sections": TypedValue(ARRAY, [24, 20, 20, 0])}


def _header(architecture: str, values: Mapping[str, Value] = {}, *tensors: str | FakeTensor) -> GGUFHeader:
    made = [FakeTensor(tensor, (32,)) if isinstance(tensor, str) else tensor for tensor in tensors]
    content = gguf_bytes({"general.architecture": architecture, **values}, made)
    return read_header_from(io.BytesIO(content), "model.gguf", size=len(content))


def _charsmap(kind: int, *items: object) -> dict[str, Value]:
    return {"tokenizer.ggml.precompiled_charsmap": TypedValue(ARRAY, list(items), kind)}


def _embeddings(rows: int, layer_rows: int) -> tuple[FakeTensor, FakeTensor]:
    return FakeTensor("token_embd.weight", (32, rows)), FakeTensor("per_layer_token_embd.weight", (32, layer_rows))


OLLAMA: list[tuple[str, GGUFHeader]] = [
    ("bert", _header("bert", _charsmap(STRING, "A", "B"))),
    ("bert", _header("bert", _charsmap(STRING, *("A" * 2000)))),
    ("deepseekocr", _header("deepseekocr")),
    ("gemma3", _header("gemma3", EPSILON, *VISION)),
    ("gemma3", _header("gemma3", {})),
    ("gemma3", _header("gemma3", {**EPSILON, "gemma3.rope.global.freq_base": 1e6})),
    ("gemma3", _header("gemma3", EPSILON, "dense.0.weight", "dense.1.weight")),
    ("gemma3n", _header("gemma3n", {}, *_embeddings(5, 4))),
    ("gemma4", _header("gemma4", {"tokenizer.ggml.model": "llama"})),
    ("gemma4", _header("gemma4", {}, "a.blk.0.weight")),
    ("glm4moelite", _header("glm4moelite")),
    ("glmocr", _header("glmocr")),
    ("gptoss", _header("gptoss")),
    ("laguna", _header("laguna", {}, "blk.0.attn_g.weight")),
    ("lfm2", _header("lfm2", {}, "output_norm.weight")),
    ("llama4", _header("llama4", {}, *VISION)),
    ("mistral3", _header("mistral3", {"mistral3.rope.scaling_beta": 0.1})),
    ("mistral3", _header("mistral3", {}, *VISION)),
    ("mllama", _header("mllama")),
    ("nemotron_h_moe", _header("nemotron_h_moe", {}, "blk.1.ffn_latent_in.weight")),
    ("nemotron_h_omni", _header("nemotron_h_omni")),
    ("olmo3", _header("olmo3")),
    ("qwen25vl", _header("qwen25vl")),
    ("qwen35", _header("qwen35", {}, "blk.0.ssm_dt")),
    ("qwen35moe", _header("qwen35moe", {}, "mtp.layers.0.weight")),
    ("qwen3next", _header("qwen3next", {}, "blk.0.ssm_dt")),
    ("qwen3vl", _header("qwen3vl")),
    ("qwen3vlmoe", _header("qwen3vlmoe")),
    ("another", _header("another", {}, *VISION)),
]
LLAMA_CPP = [
    _header("bert", _charsmap(I8, 1, 2)),
    _header("bert"),
    _header("gemma3", {**EPSILON, "gemma3.mm.tokens_per_image": 256}, "token_embd.weight"),
    _header("gemma-embedding", {}, "dense_2.weight"),
    _header("gemma3n", {}, *_embeddings(4, 4)),
    _header("gemma4", {"tokenizer.ggml.model": "gemma4"}),
    _header("glm4"),
    _header("gpt-oss"),
    _header("laguna", {}, "blk.0.attn_gate.weight"),
    _header("lfm2", {}, "token_embd_norm.weight"),
    _header("llama", {"tokenizer.ggml.model": "llama", "tokenizer.ggml.eos_token_id": 128001}, "output_norm.weight"),
    _header("llama4", {}, "output_norm.weight"),
    _header("mistral3", {"mistral3.rope.scaling.yarn_beta_fast": 32.0}),
    _header("nemotron_h_moe", {}, "blk.1.ffn_latent_down.weight"),
    _header("olmo2"),
    _header("qwen2vl"),
    _header("qwen35", {}, "blk.0.ssm_dt.bias"),
    _header("qwen35moe", {"qwen35moe.feed_forward_length": 1}, "blk.0.ssm_dt.bias"),
    _header("qwen3next", {}, "blk.0.ssm_dt.bias"),
    _header("qwen3vl", {f"qwen3vl.{key}": value for key, value in SECTIONS.items()}),
    _header("qwen3vlmoe", {f"qwen3vlmoe.{key}": value for key, value in SECTIONS.items()}),
    _header("clip", {}, *VISION),
]


@pytest.mark.parametrize(("architecture", "header"), OLLAMA)
def test_file_for_ollama_alone_is_explained(architecture: str, header: GGUFHeader) -> None:
    reason = ollama_only(header)
    assert reason is not None
    assert f"the file ({architecture}) has a format that only Ollama can load" in reason


@pytest.mark.parametrize("header", LLAMA_CPP)
def test_file_for_llama_cpp_is_accepted(header: GGUFHeader) -> None:
    assert ollama_only(header) is None


def test_every_known_architecture_is_tested() -> None:
    assert {architecture for architecture, _ in OLLAMA} == {*_FORMATS, "another"}


def test_alternatives_are_sources() -> None:
    named = [known.repository for formats in _FORMATS.values() for known in formats if known.repository]
    assert len(named) > 15
    for repository in named:
        source = parse_source(f"hf://{repository}")
        assert isinstance(source, HubSource)
        assert source.repository == repository


def test_metadata_of_such_a_file_is_an_error_with_an_alternative(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes({"general.architecture": "glmocr"}))
    with pytest.raises(GGUFError, match=r"model\.gguf cannot be loaded: .* such as hf://ggml-org/GLM-OCR-GGUF"):
        read_metadata(path)


def test_metadata_of_a_file_to_pull_is_that_of_its_translation(tmp_path: Path) -> None:
    native, ollama = gpt_oss().write(tmp_path)
    with pytest.raises(GGUFError, match="or use ollama://, which translates the file"):
        read_metadata(ollama)
    with ollama.open("rb") as file:
        metadata = read_metadata_from([OpenPart("model.gguf", file, ollama.stat().st_size)])
    expected = read_metadata(native)
    assert (metadata.family, metadata.dimensions) == ("gpt-oss", expected.dimensions)
    assert expected.size <= metadata.size <= expected.size + (1 << 17)
