"""Loading: how the Model and its weights determine the engine's options."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.weights.load_config import POOLING_LAST as LAST
from corral_core.weights.memory_estimate import MIB
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.config import RunnerConfig, from_environment
from corral_server.runner.engine.embedding import EmbeddingOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.lifecycle import loading
from corral_server.runner.lifecycle.loading import embedding_options, load_model
from corral_server.runner.llama.errors import LoadFailed
from corral_server.system.cgroup_memory import ContainerMemory
from tests.runner.engines import GREEDY, answer, chat, weights
from tests.support.gguf_split import split_gguf
from tests.support.runner_server import METADATA
from tests.support.tiny_model import write_tiny_model


def load(config: RunnerConfig, progress: Callable[[float], bool]) -> LoadedModel:
    return load_model(config.model.spec, config.engine, roots=config.roots, progress=progress)


def embedding(
    pooling: int, *, family: str = "qwen3", causal: bool | None = None, wanted: bool = False
) -> EmbeddingOptions | None:
    info: dict[str, object] = {f"{family}.pooling_type": pooling}
    if causal is not None:
        info[f"{family}.attention.causal"] = causal
    return embedding_options(replace(METADATA, family=family, capabilities=("embedding",), info=info), wanted)


def test_a_generating_model_embeds_if_enabled() -> None:
    assert embedding_options(METADATA, enabled=False) is None
    assert embedding_options(METADATA, enabled=True) == EmbeddingOptions(
        pooling=LAST, chunked=True, embedding_only=False
    )


@pytest.mark.parametrize("pooling", [1, 2, 4])
def test_an_embedding_model_has_its_own_pooling(pooling: int) -> None:
    assert embedding(pooling, family="bert", causal=False) == EmbeddingOptions(pooling=-1, embedding_only=True)


@pytest.mark.parametrize("pooling", [0, 3])
def test_a_causal_model_pooled_by_last_token_is_read_in_pieces(pooling: int) -> None:
    assert embedding(pooling) == EmbeddingOptions(pooling=LAST, chunked=True, embedding_only=True)


@pytest.mark.parametrize(("family", "causal"), [("bert", None), ("nomic-bert", False), ("gemma3", False)])
def test_a_model_with_full_attention_is_never_read_in_pieces(family: str, causal: bool | None) -> None:
    assert embedding(3, family=family, causal=causal) == EmbeddingOptions(
        pooling=LAST, chunked=False, embedding_only=True
    )


@pytest.mark.process
def test_the_models_template_does_not_change_the_metadata_of_the_weights() -> None:
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
    assert "insert" in loaded.metadata.capabilities
    assert loaded.weights is not None
    assert "im_start" in loaded.weights.template


@pytest.mark.process
def test_split_weights_are_checked_loaded_and_answer(tmp_path: Path) -> None:
    parts = split_gguf(weights(), tmp_path, parts=3)
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    spec = {"source": f"pvc://claim/{parts[0].name}", "sha256": digest, "contextLength": 128, "parallel": 1}
    model = json.dumps({"name": "a", "namespace": "b", "spec": spec})
    config = from_environment({"CORRAL_MODEL": model, "CORRAL_PVC_ROOT": str(tmp_path)})
    loaded = load(config, lambda _: True)
    assert isinstance(loaded.engine, LlamaEngine)
    try:
        assert loaded.metadata.size == sum(part.stat().st_size for part in parts)
        prompt = chat(loaded.engine, "What is the capital of France? Answer with one word.")
        assert "Paris" in answer(loaded.engine, GenerationTask(prompt, GREEDY, max_tokens=8)).text
    finally:
        loaded.engine.close()
    parts[1].unlink()
    with pytest.raises(SourceError, match=parts[1].name):
        load(config, lambda _: True)


@pytest.mark.process
def test_weights_larger_than_the_containers_memory_are_refused_before_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"source": f"file://{write_tiny_model(tmp_path)}", "contextLength": 2048}
    model = json.dumps({"name": "tiny", "namespace": "default", "spec": spec})
    config = from_environment({"CORRAL_MODEL": model, "CORRAL_THREADS": "1"})
    shares: list[float] = []

    def note(share: float) -> bool:
        shares.append(share)
        return True

    monkeypatch.setattr(loading, "container_memory", lambda: ContainerMemory(64 * MIB, 63 * MIB))
    with pytest.raises(LoadFailed, match="only 1 MiB of the limit of 64 MiB is free"):
        load(config, note)
    assert shares == []
    monkeypatch.setattr(loading, "container_memory", lambda: ContainerMemory(64 * MIB, 0))
    loaded = load(config, note)
    loaded.engine.close()
    assert shares[-1] == 1.0
