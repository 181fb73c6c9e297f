"""PyPI's ``litellm`` by each API that it has for a server like this: Ollama's two, OpenAI's and Anthropic's."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.local.served import Served
from tests.support import minilm

pytestmark = [pytest.mark.process, pytest.mark.clients]

ALL, WITH_TOOLS = ("ollama_chat", "ollama", "openai", "anthropic"), ("ollama_chat", "openai", "anthropic")
Answers = Mapping[str, Any]


@pytest.fixture(scope="module")
def answers(served: Served, clients_python: Path) -> Answers:
    """All that litellm_calls.py asked."""
    done = subprocess.run(
        [str(clients_python), str(Path(__file__).with_name("litellm_calls.py")), served.url],
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


def test_reasoning_is_told_apart(answers: Answers) -> None:
    assert answers["thought"] == ["Rome is a city.", "Rome is in Italy."]


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_embeddings(answers: Answers, provider: str) -> None:
    vector, _ = answers["vectors"][provider]
    assert float(np.asarray(vector, np.float32) @ minilm.reference("hello")) > 0.9999


@pytest.mark.parametrize("provider", ALL)
def test_an_unknown_model(answers: Answers, provider: str) -> None:
    kind, text = answers["errors"][provider]
    assert kind == "NotFoundError"
    assert "model 'nope' not found" in text
