"""Errors of /api/generate and /api/chat and their texts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, serving

GENERATE, CHAT = "/api/generate", "/api/chat"
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("keep_alive", "text"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("abc", 'time: invalid duration "abc"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        (True, "Unsupported type: 'bool'"),
        ([], "Unsupported type: '[]interface {}'"),
        ({}, "Unsupported type: 'map[string]interface {}'"),
    ],
)
def test_a_wrong_keep_alive_is_refused(runner: ServedRunner, keep_alive: object, text: str) -> None:
    response = runner.post(CHAT, HELLO | {"keep_alive": keep_alive})
    assert (response.status_code, response.json()) == (400, {"error": text})


@pytest.mark.parametrize(
    ("path", "status", "text"), [(GENERATE, 404, "model '' not found"), (CHAT, 400, "model is required")]
)
def test_a_missing_model(runner: ServedRunner, path: str, status: int, text: str) -> None:
    response = runner.post(path, {"model": ""})
    assert (response.status_code, response.json()) == (status, {"error": text})


@pytest.mark.parametrize("path", [GENERATE, CHAT])
def test_an_invalid_model_name(runner: ServedRunner, path: str) -> None:
    response = runner.post(path, {"model": "a//b::c"})
    assert (response.status_code, response.json()) == (400, {"error": "invalid model name"})


@pytest.mark.parametrize("path", [GENERATE, CHAT])
def test_a_missing_body(runner: ServedRunner, path: str) -> None:
    response = runner.post(path, raw=b"")
    assert (response.status_code, response.json()) == (400, {"error": "missing request body"})


@pytest.mark.parametrize("think", [True, "high"])
def test_think_on_a_model_without_thinking(runner: ServedRunner, think: object) -> None:
    response = runner.post(CHAT, HELLO | {"think": think})
    assert (response.status_code, response.json()) == (400, {"error": '"tiny" does not support thinking'})


def test_think_false_is_accepted(runner: ServedRunner) -> None:
    assert runner.post(CHAT, HELLO | {"think": False}).status_code == 200


@pytest.mark.parametrize("level", ["lots", "minimal", "xhigh", "ultra"])
def test_an_unknown_think_level(runner: ServedRunner, level: str) -> None:
    response = runner.post(CHAT, HELLO | {"think": level})
    text = f'invalid think value: "{level}" (must be "high", "medium", "low", "max", true, or false)'
    assert (response.status_code, response.json()) == (400, {"error": text})


def test_tools_are_refused_with_the_full_name(runner: ServedRunner) -> None:
    response = runner.post(CHAT, HELLO | {"tools": [{"type": "function", "function": {"name": "f"}}]})
    text = "registry.ollama.ai/library/tiny:latest does not support tools"
    assert (response.status_code, response.json()) == (400, {"error": text})


def test_suffix_is_refused_with_the_full_name(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "a", "suffix": "b"})
    text = "registry.ollama.ai/library/tiny:latest does not support insert"
    assert (response.status_code, response.json()) == (400, {"error": text})


def test_images_are_refused(runner: ServedRunner) -> None:
    expected = {"error": '"tiny" does not support images'}
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "a", "images": ["aGk="]})
    assert (response.status_code, response.json()) == (400, expected)
    messages = [{"role": "user", "content": "a", "images": ["aGk="]}]
    response = runner.post(CHAT, {"model": "tiny", "messages": messages})
    assert (response.status_code, response.json()) == (400, expected)


@pytest.mark.parametrize(("path", "action"), [(GENERATE, "generate"), (CHAT, "chat")])
def test_an_embedding_model_cannot_complete(engine: FakeEngine, path: str, action: str) -> None:
    with serving(engine, metadata=replace(METADATA, capabilities=("embedding",))) as runner:
        response = runner.post(path, {"model": "tiny", "prompt": "a"})
    assert (response.status_code, response.json()) == (400, {"error": f'"tiny" does not support {action}'})


def test_top_logprobs_out_of_range(runner: ServedRunner) -> None:
    response = runner.post(CHAT, HELLO | {"top_logprobs": 21})
    assert (response.status_code, response.json()) == (400, {"error": "top_logprobs must be between 0 and 20"})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"model": 1}, "json: cannot unmarshal number into Go struct field ChatRequest.model of type string"),
        ({"stream": "no"}, "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool"),
        (
            {"messages": [{"content": []}]},
            "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string",
        ),
        (
            {"messages": ["hi"]},
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type api.Alias",
        ),
        (
            {"messages": "hi"},
            "json: cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message",
        ),
        (
            {"options": []},
            "json: cannot unmarshal array into Go struct field ChatRequest.options of type map[string]interface {}",
        ),
    ],
)
def test_wrong_types_have_the_texts_of_gos_decoder(runner: ServedRunner, field: dict[str, object], text: str) -> None:
    response = runner.post(CHAT, HELLO | field)
    assert (response.status_code, response.json()) == (400, {"error": text})
