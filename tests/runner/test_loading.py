"""How the Model and its weights decide what is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.estimate import MIB
from corral_core.load import POOLING_LAST as LAST
from corral_server.runner import loading
from corral_server.runner.cgroup_memory import HostMemory
from corral_server.runner.config import from_environment
from corral_server.runner.contexts import EngineOptions
from corral_server.runner.embedding import EmbeddingOptions
from corral_server.runner.generation import LoadFailed
from corral_server.runner.loading import embedding_of, load, on_what_is_here
from tests.runner.engines import weights
from tests.support.runner_server import FACTS
from tests.support.tiny_model import write


def embedding(
    pooling: int, *, family: str = "qwen3", causal: bool | None = None, wanted: bool = False
) -> EmbeddingOptions | None:
    info: dict[str, object] = {f"{family}.pooling_type": pooling}
    if causal is not None:
        info[f"{family}.attention.causal"] = causal
    return embedding_of(replace(FACTS, family=family, capabilities=("embedding",), info=info), wanted)


def test_a_model_that_generates_embeds_where_it_is_wanted() -> None:
    assert embedding_of(FACTS, wanted=False) is None
    assert embedding_of(FACTS, wanted=True) == EmbeddingOptions(pooling=LAST, pieces=True, only=False)


@pytest.mark.parametrize("pooling", [1, 2, 4])
def test_the_pooling_of_an_embedding_model_is_its_own(pooling: int) -> None:
    assert embedding(pooling, family="bert", causal=False) == EmbeddingOptions(pooling=-1, only=True)


@pytest.mark.parametrize("pooling", [0, 3])
def test_the_last_token_of_a_causal_model_may_be_read_in_pieces(pooling: int) -> None:
    assert embedding(pooling) == EmbeddingOptions(pooling=LAST, pieces=True, only=True)


@pytest.mark.parametrize(("family", "causal"), [("bert", None), ("nomic-bert", False), ("gemma3", False)])
def test_what_attends_to_all_of_an_input_is_never_read_in_pieces(family: str, causal: bool | None) -> None:
    assert embedding(3, family=family, causal=causal) == EmbeddingOptions(pooling=LAST, pieces=False, only=True)


def test_a_model_that_asks_for_gpus_runs_on_the_cpu_where_there_is_none_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wished = EngineOptions(gpu_layers=-1)
    assert on_what_is_here(wished, gpus=True) == wished
    assert on_what_is_here(replace(wished, gpu_layers=0), gpus=False).gpu_layers == 0
    assert not caplog.records
    assert on_what_is_here(wished, gpus=False).gpu_layers == 0
    assert "finds none" in caplog.text


@pytest.mark.process
def test_a_template_of_the_model_is_used_and_leaves_the_facts_of_the_weights_alone() -> None:
    spec = {
        "source": weights().as_uri(),
        "template": "<{{ .Prompt }}{{ .Suffix }}>",
        "contextLength": 64,
        "parallel": 1,
    }
    model = {"name": "a", "namespace": "b", "spec": spec}
    loaded = load(from_environment({"CORRAL_MODEL": json.dumps(model)}), lambda _: True)
    loaded.engine.close()
    assert loaded.template.render([{"role": "user", "content": "hi"}]) == "<hi>"
    assert "insert" in loaded.facts.capabilities
    assert loaded.weights is not None
    assert "im_start" in loaded.weights.template


@pytest.mark.process
def test_weights_that_do_not_fit_the_container_are_refused_before_they_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"source": f"file://{write(tmp_path)}", "contextLength": 2048}
    model = json.dumps({"name": "tiny", "namespace": "default", "spec": spec})
    config = from_environment({"CORRAL_MODEL": model, "CORRAL_THREADS": "1"})
    shares: list[float] = []

    def note(share: float) -> bool:
        shares.append(share)
        return True

    monkeypatch.setattr(loading, "host_memory", lambda: HostMemory(64 * MIB, 63 * MIB))
    with pytest.raises(LoadFailed, match="of the limit of 64 MiB 1 MiB are free"):
        load(config, note)
    assert shares == []
    monkeypatch.setattr(loading, "host_memory", lambda: HostMemory(64 * MIB, 0))
    loaded = load(config, note)
    loaded.engine.close()
    assert shares[-1] == 1.0
