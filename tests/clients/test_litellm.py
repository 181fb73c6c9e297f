"""PyPI's ``litellm`` with each of its providers for such a server: two for Ollama, OpenAI, Anthropic."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.clients.served_models import RANKS
from tests.local.served import START, Served
from tests.support import minilm
from tests.support.projectors import ROWS, require_mtmd

pytestmark = [pytest.mark.process, pytest.mark.clients]

RANKED = {"query": "q", "documents": ["hello", "The quick brown fox", "q"]}
RANKERS = ("jina_ai", "cohere", "infinity", "hosted_vllm")
ALL, WITH_TOOLS = ("ollama_chat", "ollama", "openai", "anthropic"), ("ollama_chat", "openai", "anthropic")
Answers = Mapping[str, Any]


@pytest.fixture(scope="module")
def answers(served: Served, extra: Served, clients_python: Path) -> Answers:
    """The results of all calls in litellm_calls.py."""
    done = subprocess.run(
        [str(clients_python), str(Path(__file__).with_name("litellm_calls.py")), served.url, extra.url],
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: Answers = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("provider", ALL)
def test_a_chat(answers: Answers, provider: str) -> None:
    said = answers["chats"][provider]
    assert "Paris" in said["whole"]
    assert said["stream"] == said["whole"]
    assert said["async"] == [said["whole"], said["whole"]]
    assert said["tokens"] > 0


@pytest.mark.parametrize("provider", WITH_TOOLS)
def test_a_tool_is_called(answers: Answers, provider: str) -> None:
    assert answers["calls"][provider] == [["get_weather", {"city": "Rome"}]]


def test_reasoning_is_separated(answers: Answers) -> None:
    assert answers["thought"] == ["Rome is a city.", "Rome is in Italy."]


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_embeddings(answers: Answers, provider: str) -> None:
    vector, _ = answers["vectors"][provider]
    assert float(np.asarray(vector, np.float32) @ minilm.reference_embedding("hello")) > 0.9999


@pytest.mark.parametrize("provider", ALL)
def test_an_image_takes_its_rows_of_the_prompt(answers: Answers, provider: str) -> None:
    require_mtmd()
    plain, seen = answers["images"][provider]
    assert seen >= plain + ROWS


@pytest.mark.parametrize("provider", RANKERS)
def test_documents_are_ranked(answers: Answers, extra: Served, provider: str) -> None:
    body = {"model": RANKS, **RANKED, "top_n": 2}
    expected = httpx.post(f"{extra.url}/v1/rerank", json=body, timeout=START).json()["results"]
    found = [(result["index"], result["relevance_score"]) for result in answers["ranks"][provider]]
    assert found == [(result["index"], result["relevance_score"]) for result in expected]


@pytest.mark.parametrize("provider", ALL)
def test_an_unknown_model(answers: Answers, provider: str) -> None:
    kind, text = answers["errors"][provider]
    assert kind == "NotFoundError"
    assert "model 'nope' not found" in text
