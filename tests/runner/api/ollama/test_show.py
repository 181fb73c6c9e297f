"""/api/show of a runner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.gguf_files import gguf_bytes
from tests.support.runner_server import TEMPLATE, ServedRunner, runner_state, serving, serving_state

SPEC = {"system": "be kind", "parameters": {"temperature": 0.5, "stop": ["A", "B"], "top_k": 3}}


@pytest.fixture(scope="module")
def runner() -> Iterator[ServedRunner]:
    with serving(FakeEngine(), spec=SPEC) as runner:
        yield runner


def test_show_has_the_fields_that_clients_need(runner: ServedRunner) -> None:
    body = runner.post("/api/show", {"model": "tiny"}).json()
    assert body["details"] == {
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "135M",
        "quantization_level": "Q4_1",
    }
    assert body["capabilities"] == ["completion"]
    assert body["template"] == TEMPLATE
    assert body["system"] == "be kind"
    assert body["modified_at"].endswith("Z")


def test_model_info_has_the_keys_that_integrations_need_and_null_arrays(runner: ServedRunner) -> None:
    info = runner.post("/api/show", {"model": "tiny"}).json()["model_info"]
    assert info["general.architecture"] == "llama"
    assert info["general.parameter_count"] == 135_000_000
    assert (info["llama.context_length"], info["llama.embedding_length"]) == (8192, 576)
    assert info["tokenizer.ggml.tokens"] is None
    assert "tokenizer.chat_template" not in info


def test_parameters_are_lines_with_their_values_in_one_column(runner: ServedRunner) -> None:
    lines = runner.post("/api/show", {"model": "tiny"}).json()["parameters"].splitlines()
    assert sorted(lines) == [
        f'{"stop":<30} "A"',
        f'{"stop":<30} "B"',
        f"{'temperature':<30} 0.5",
        f"{'top_k':<30} 3",
    ]


def test_the_modelfile_has_the_models_settings(runner: ServedRunner) -> None:
    modelfile = runner.post("/api/show", {"model": "tiny"}).json()["modelfile"]
    assert modelfile.startswith("FROM package://weights/tiny.gguf\n")
    assert "SYSTEM be kind\n" in modelfile
    assert "PARAMETER stop B\n" in modelfile


def test_the_legacy_field_name_is_accepted(runner: ServedRunner) -> None:
    assert runner.post("/api/show", {"name": "tiny"}).status_code == 200


def test_a_missing_name(runner: ServedRunner) -> None:
    response = runner.post("/api/show", {"verbose": True})
    assert (response.status_code, response.json()) == (400, {"error": "model is required"})


def test_copilot_gets_the_requested_name(runner: ServedRunner) -> None:
    headers = {"User-Agent": "GitHubCopilotChat/0.30"}
    body = runner.http.post("/api/show", json={"model": "tiny:x"}, headers=headers).json()
    assert body["model_info"]["general.basename"] == "tiny:x"


def test_the_models_template_determines_the_capabilities() -> None:
    source = "{{ .Prompt }}{{ .Suffix }}{{ .Tools }}"
    with serving(FakeEngine(), spec={"template": source}) as runner:
        body = runner.post("/api/show", {"model": "tiny"}).json()
    assert (body["template"], body["capabilities"]) == (source, ["completion", "tools", "insert"])
    assert f"TEMPLATE {source}\n" in body["modelfile"]


def test_verbose_adds_the_arrays_and_tensors_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_bytes())
    state = runner_state(FakeEngine())
    assert state.loaded is not None
    state.loaded = replace(state.loaded, file=path)
    with serving_state(state) as runner:
        verbose = runner.post("/api/show", {"model": "tiny", "verbose": True}).json()
        plain = runner.post("/api/show", {"model": "tiny"}).json()
        path.unlink()
        gone = runner.post("/api/show", {"model": "tiny", "verbose": True}).json()
    assert verbose["model_info"]["tokenizer.ggml.tokens"] == ["<s>", "</s>", "a", "b"]
    assert verbose["tensors"][1] == {"name": "output_norm.weight", "type": "F32", "shape": [32]}
    for told in (plain, gone):
        assert told["model_info"]["tokenizer.ggml.tokens"] is None
        assert "tensors" not in told


@pytest.mark.parametrize(
    ("told", "shown"), [("1750000000.25", "2025-06-15T15:06:40.250000000Z"), ("nan", "20"), ("1e99", "20"), ("", "20")]
)
def test_modified_at_comes_from_the_gateways_header(runner: ServedRunner, told: str, shown: str) -> None:
    answer = runner.http.post("/api/show", json={"model": "tiny"}, headers={"corral-modified": told})
    assert answer.json()["modified_at"].startswith(shown)


def test_the_modelfile_quotes_only_values_that_need_it() -> None:
    spec = {"system": 'say "hi"\nand no more', "parameters": {"stop": [" end", "a b"], "temperature": 0.5}}
    with serving(FakeEngine(), spec=spec) as runner:
        modelfile = runner.post("/api/show", {"model": "tiny"}).json()["modelfile"]
    assert 'SYSTEM """say "hi"\nand no more"""\n' in modelfile
    assert 'PARAMETER temperature 0.5\nPARAMETER stop " end"\nPARAMETER stop a b\n' in modelfile
