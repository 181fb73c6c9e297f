"""Runner processes with an encoder-only model, used by official clients, and with an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import ollama
import openai
import pytest

from tests.support import minilm
from tests.support.lora import write_lora
from tests.support.runner_process import RunnerProcess, runner_environment, runner_process

pytestmark = pytest.mark.process

TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    path = minilm.write_gguf(tmp_path_factory.mktemp("minilm") / "minilm.gguf")
    with runner_process(runner_environment(path.as_uri())) as runner:
        yield runner.wait_ready()


def near(vector: npt.ArrayLike, text: str = TEXT) -> bool:
    return float(np.asarray(vector, np.float32) @ minilm.reference_embedding(text)) > 0.9999


def test_ollamas_client_embeds(runner: RunnerProcess) -> None:
    client = ollama.Client(runner.url)
    try:
        answer = client.embed("minilm", [TEXT, "hello"])
        legacy = client.embeddings("minilm", TEXT)
    finally:
        client._client.close()
    assert near(answer.embeddings[0])
    assert near(answer.embeddings[1], "hello")
    assert answer.prompt_eval_count == len(minilm.tokenize(TEXT)) + len(minilm.tokenize("hello"))
    assert near(legacy.embedding)


def test_openais_client_embeds(runner: RunnerProcess) -> None:
    """OpenAI's client requests base64 by default."""
    with openai.OpenAI(base_url=f"{runner.url}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="minilm", input=TEXT)
        plain = client.embeddings.create(model="minilm", input=TEXT, encoding_format="float")
    assert near(answer.data[0].embedding)
    assert near(plain.data[0].embedding)
    assert answer.usage.prompt_tokens == len(minilm.tokenize(TEXT))


def test_an_input_longer_than_the_context_is_truncated_or_refused(runner: RunnerProcess) -> None:
    body = {"model": "minilm", "input": "fox " * 2000}
    with runner.client() as client:
        cut = client.post("/api/embed", json=body).json()
        refused = client.post("/api/embed", json={**body, "truncate": False})
    assert cut["prompt_eval_count"] == minilm.CONTEXT
    assert (refused.status_code, refused.json()["error"]) == (400, "the input length exceeds the context length")


def test_an_encoder_has_only_the_embedding_capability(runner: RunnerProcess) -> None:
    with runner.client() as client:
        shown = client.post("/api/show", json={"model": "minilm"}).json()
        refused = client.post("/api/generate", json={"model": "minilm", "prompt": "hi"})
    assert shown["capabilities"] == ["embedding"]
    assert (refused.status_code, refused.json()["error"]) == (400, '"minilm" does not support generate')


def test_the_requested_name_selects_the_adapter(tmp_path: Path) -> None:
    adapter = {"name": "smollm2:tuned", "source": write_lora(tmp_path / "tuned.gguf", seed=1).as_uri()}
    asked = {
        "prompt": "The capital of France is",
        "raw": True,
        "stream": False,
        "options": {"temperature": 0, "num_predict": 12},
    }
    with runner_process(
        runner_environment(spec={"adapters": [adapter], "contextLength": 256, "embeddings": True})
    ) as runner:
        runner.wait_ready()
        with runner.client() as client:
            vectors = [
                client.post("/api/embed", json={"model": name, "input": "tea"}).json()["embeddings"]
                for name in ("smollm2", "SmolLM2:tuned")
            ]
            plain, tuned = (
                client.post("/api/generate", json={"model": name, **asked}).json()
                for name in ("smollm2", "SmolLM2:tuned")
            )
    assert "Paris" in plain["response"]
    assert tuned["model"] == "SmolLM2:tuned"
    assert tuned["response"] != plain["response"]
    assert vectors[0] != vectors[1]


def test_an_incompatible_adapter_ends_the_runner_and_is_named(tmp_path: Path) -> None:
    adapter = {"name": "tuned", "source": write_lora(tmp_path / "tuned.gguf", seed=1, width=64).as_uri()}
    with runner_process(runner_environment(spec={"adapters": [adapter], "contextLength": 256})) as runner:
        assert runner.wait_for_exit() == 1
    assert "tuned.gguf" in "".join(runner.errors)
