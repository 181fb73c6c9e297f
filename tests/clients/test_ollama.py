"""PyPI's ``ollama``: all methods for one Model, synchronous and asynchronous, whole and streamed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ollama
import pytest

from tests.clients.modes import MODES, Mode, answer, every_mode, parts, sync_and_async
from tests.clients.served_models import CHATS, CLEVER, COLD, EMBEDS, SCHEMA, SYSTEM, TOOL, WEATHER, WHERE
from tests.local.served import START, Served
from tests.support import minilm
from tests.support.ollama_registry import OllamaRegistry
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until

pytestmark = pytest.mark.process

CITY = "What is the capital of France? Answer in one sentence."
OPTIONS = {"temperature": 0, "num_predict": 12, "seed": 1}
TEXTS = ["The quick brown fox", "hello"]


def other(served: Served) -> ollama.AsyncClient:
    return ollama.AsyncClient(served.url, timeout=START)


def chat(served: Served, mode: Mode, **arguments: object) -> Sequence[ollama.ChatResponse]:
    return parts(
        mode,
        ollama.ChatResponse,
        served.client,
        lambda: other(served),
        lambda client, stream: client.chat(stream=stream, **arguments),
    )


def generate(served: Served, mode: Mode, **arguments: object) -> Sequence[ollama.GenerateResponse]:
    return parts(
        mode,
        ollama.GenerateResponse,
        served.client,
        lambda: other(served),
        lambda client, stream: client.generate(stream=stream, **arguments),
    )


def pull(served: Served, mode: Mode, model: str) -> Sequence[ollama.ProgressResponse]:
    return parts(
        mode,
        ollama.ProgressResponse,
        served.client,
        lambda: other(served),
        lambda client, stream: client.pull(model, stream=stream),
    )


def ask(served: Served, asynchronous: bool, call: Callable[[Any], Any]) -> Any:
    return answer(asynchronous, served.client, lambda: other(served), call)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@every_mode
def test_chat(served: Served, mode: Mode) -> None:
    found = chat(served, mode, model=CHATS, messages=user(CITY), options=OPTIONS)
    assert "Paris" in "".join(part.message.content or "" for part in found)
    assert {part.message.role for part in found} == {"assistant"}
    assert [part.done for part in found] == [*[False] * (len(found) - 1), True]
    assert (len(found) > 3) == mode.stream
    last = found[-1]
    assert last.done_reason in ("stop", "length")
    assert last.model == CHATS
    counts = (last.total_duration, last.prompt_eval_count, last.prompt_eval_duration, last.eval_count)
    assert all(count and count > 0 for count in counts)


@every_mode
def test_generate(served: Served, mode: Mode) -> None:
    found = generate(served, mode, model="TINY:latest", prompt=CITY, options=OPTIONS)
    assert "Paris" in "".join(part.response or "" for part in found)
    assert found[-1].context
    assert found[-1].model == "TINY:latest"


@every_mode
def test_chat_calls_a_tool(served: Served, mode: Mode) -> None:
    found = chat(served, mode, model=CLEVER, messages=user(WEATHER), tools=[TOOL], options={"num_predict": 40})
    calls = [call for part in found for call in part.message.tool_calls or []]
    assert [(call.function.name, call.function.arguments) for call in calls] == [("get_weather", {"city": "Rome"})]
    assert found[-1].done_reason == "stop"


def test_a_python_function_is_a_tool_and_its_result_is_used(served: Served) -> None:
    def get_weather(city: str) -> str:
        """The weather in a city.

        Args:
          city: its name
        """
        return f"sunny in {city}"

    messages: list[Any] = user(WEATHER)
    first = served.client.chat(CLEVER, messages, tools=[get_weather], options={"num_predict": 40})
    assert first.message.tool_calls
    function = first.message.tool_calls[0].function
    result = {"role": "tool", "content": get_weather(**function.arguments), "tool_name": function.name}
    messages += [first.message, result]
    second = served.client.chat(CLEVER, messages, think=False, options={"num_predict": 20})
    assert "sunny" in (second.message.content or "")


@every_mode
def test_chat_separates_thinking(served: Served, mode: Mode) -> None:
    found = chat(served, mode, model=CLEVER, messages=user(WHERE), think=True, options={"num_predict": 40})
    assert "".join(part.message.thinking or "" for part in found) == "Rome is a city."
    assert "".join(part.message.content or "" for part in found) == "Rome is in Italy."


@every_mode
def test_generate_separates_thinking(served: Served, mode: Mode) -> None:
    found = generate(served, mode, model=CLEVER, prompt=WHERE, think=True, options={"num_predict": 40})
    assert "".join(part.thinking or "" for part in found) == "Rome is a city."
    assert "".join(part.response or "" for part in found) == "Rome is in Italy."


@pytest.mark.parametrize("think", [True, "high"])
@every_mode
def test_think_on_a_model_without_thinking_is_refused(served: Served, mode: Mode, think: object) -> None:
    with pytest.raises(ollama.ResponseError) as error:
        chat(served, mode, model=CHATS, messages=user("hi"), think=think)
    assert (error.value.status_code, error.value.error) == (400, '"tiny" does not support thinking')


def test_a_format_is_enforced(served: Served) -> None:
    said = served.client.chat(CHATS, user(WEATHER), format=SCHEMA, options={"num_predict": 40})
    assert isinstance(json.loads(said.message.content or "")["city"], str)


@every_mode
def test_logprobs(served: Served, mode: Mode) -> None:
    found = generate(served, mode, model=CHATS, prompt=CITY, options=OPTIONS, logprobs=True, top_logprobs=2)
    tokens = [token for part in found for token in part.logprobs or []]
    last = found[-1]
    assert len(tokens) == (last.eval_count or 0) - (last.done_reason == "stop")
    assert all(token.logprob <= 0 and len(token.top_logprobs or []) == 2 for token in tokens)


def test_context_continues_a_generation(served: Served) -> None:
    first = served.client.generate(CHATS, "My name is Bob.", options=OPTIONS)
    second = served.client.generate(CHATS, "What is my name?", options=OPTIONS, context=first.context)
    alone = served.client.generate(CHATS, "What is my name?", options=OPTIONS)
    assert (second.prompt_eval_count or 0) > (alone.prompt_eval_count or 0) + len(first.context or []) - 2


def test_raw_system_and_template(served: Served) -> None:
    raw = served.client.generate(CHATS, "The capital of France is", raw=True, options=OPTIONS)
    assert "Paris" in (raw.response or "")
    assert raw.context is None
    told = served.client.generate(
        CHATS, "go on", system="SECRET", template="{{ .System }} capital of France is", options=OPTIONS
    )
    assert told.response


@sync_and_async
def test_embed(served: Served, asynchronous: bool) -> None:
    said = ask(served, asynchronous, lambda client: client.embed(EMBEDS, TEXTS))
    assert len(said.embeddings) == 2
    for vector, text in zip(said.embeddings, TEXTS, strict=True):
        assert float(np.asarray(vector, np.float32) @ minilm.reference_embedding(text)) > 0.9999
    assert said.model == EMBEDS
    short = ask(served, asynchronous, lambda client: client.embed(EMBEDS, "hello", dimensions=32))
    assert len(short.embeddings[0]) == 32


@sync_and_async
def test_embeddings(served: Served, asynchronous: bool) -> None:
    said = ask(served, asynchronous, lambda client: client.embeddings(EMBEDS, "hello"))
    assert float(np.asarray(said.embedding, np.float32) @ minilm.reference_embedding("hello")) > 0.9999


@sync_and_async
def test_list(served: Served, asynchronous: bool) -> None:
    listed = {model.model: model for model in ask(served, asynchronous, lambda client: client.list()).models}
    assert set(listed) == {"tiny:latest", "smollm2:135m", "clever:latest", "minilm:latest", "cold:latest"}
    tiny = listed["tiny:latest"]
    assert tiny.digest
    assert len(tiny.digest) == 64
    assert tiny.details
    assert (tiny.details.family, tiny.details.quantization_level) == ("llama", "Q4_1")


@sync_and_async
def test_ps(served: Served, asynchronous: bool) -> None:
    served.client.generate(CHATS, keep_alive="10m")
    running = {model.model: model for model in ask(served, asynchronous, lambda client: client.ps()).models}
    tiny = running["tiny:latest"]
    assert tiny.size
    assert tiny.expires_at
    assert 500 < tiny.expires_at.timestamp() - time.time() < 601
    assert (tiny.context_length, tiny.size_vram) == (1024, 0)
    assert "cold:latest" not in running


@sync_and_async
def test_show(served: Served, asynchronous: bool) -> None:
    said = ask(served, asynchronous, lambda client: client.show(CHATS))
    assert said.capabilities == ["completion"]
    assert said.modelinfo
    assert said.modelinfo["general.architecture"] == "llama"
    assert said.modelinfo["llama.embedding_length"] == 576
    assert SYSTEM in (said.modelfile or "")
    assert "stop" in (said.parameters or "")
    assert ask(served, asynchronous, lambda client: client.show(CLEVER)).capabilities == [
        "completion",
        "tools",
        "thinking",
    ]
    assert ask(served, asynchronous, lambda client: client.show(EMBEDS)).capabilities == ["embedding"]


@every_mode
def test_pull_of_a_models_name(served: Served, mode: Mode) -> None:
    found = pull(served, mode, COLD)
    assert found[-1].status == "success"
    assert any(part.total is not None and part.completed == part.total for part in found) == mode.stream
    assert [model for model in served.client.ps().models if model.model == "cold:latest"] == []


@every_mode
def test_pull_of_an_unknown_name(served: Served, registry: OllamaRegistry, mode: Mode) -> None:
    with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist"):
        pull(served, mode, f"{registry.host}/library/nope")


@sync_and_async
def test_preload_and_unload(served: Served, asynchronous: bool) -> None:
    loaded = ask(served, asynchronous, lambda client: client.generate(CHATS, keep_alive=300))
    assert (loaded.done_reason, loaded.response) == ("load", "")
    unloaded = ask(served, asynchronous, lambda client: client.chat(CHATS, [], keep_alive=0))
    assert (unloaded.done_reason, unloaded.message.content) == ("unload", "")
    until(lambda: "tiny:latest" not in {model.model for model in served.client.ps().models}, START)


@pytest.mark.parametrize(
    ("call", "status", "text"),
    [
        (lambda client: client.chat("nope", user("hi")), 404, "model 'nope' not found"),
        (lambda client: client.generate("nope", "hi"), 404, "model 'nope' not found"),
        (lambda client: client.embed("nope", "hi"), 404, 'model "nope" not found, try pulling it first'),
        (lambda client: client.embeddings("nope", "hi"), 404, 'model "nope" not found, try pulling it first'),
        (lambda client: client.show("nope"), 404, "model 'nope:latest' not found"),
        (lambda client: client.delete("nope"), 404, "model 'nope' not found"),
        (lambda client: client.copy("nope", "new"), 404, 'model "nope" not found'),
        (lambda client: client.chat("a//b", user("hi")), 400, "invalid model name"),
        (
            lambda client: client.chat(CHATS, user("hi"), tools=[TOOL]),
            400,
            "registry.ollama.ai/library/tiny:latest does not support tools",
        ),
        (
            lambda client: client.generate(CHATS, "a", suffix="b"),
            400,
            "registry.ollama.ai/library/tiny:latest does not support insert",
        ),
        (lambda client: client.chat(CHATS, user("hi"), keep_alive="10"), 400, 'time: missing unit in duration "10"'),
        (lambda client: client.generate(EMBEDS, "hi"), 400, '"minilm" does not support generate'),
        (lambda client: client.chat(EMBEDS, user("hi")), 400, '"minilm" does not support chat'),
        (
            lambda client: client.embed(CHATS, "hi"),
            501,
            "This server does not support embeddings. Start it with `--embeddings`",
        ),
        (
            lambda client: client.chat(CHATS, user("hi"), options={"num_ctx": "many"}),
            500,
            'option "num_ctx" must be of type integer',
        ),
        (
            lambda client: client.create("new", from_=CHATS, files={"/x.gguf": "sha256:" + "0" * 64}),
            400,
            "file path must be relative: /x.gguf",
        ),
    ],
)
@sync_and_async
def test_errors(served: Served, asynchronous: bool, call: Callable[[Any], object], status: int, text: str) -> None:
    with pytest.raises(ollama.ResponseError) as error:
        ask(served, asynchronous, call)
    assert (error.value.status_code, error.value.error) == (status, text)


@sync_and_async
def test_create_copy_and_delete(served: Served, asynchronous: bool) -> None:
    made = ask(served, asynchronous, lambda client: client.create("made", from_=CHATS, system="Be brief."))
    assert made.status == "success"
    assert ask(served, asynchronous, lambda client: client.copy("made", "copied")).status == "success"
    assert "SYSTEM Be brief." in (served.client.show("copied").modelfile or "")
    assert ask(served, asynchronous, lambda client: client.delete("made")).status == "success"
    assert ask(served, asynchronous, lambda client: client.delete("copied")).status == "success"
    with pytest.raises(ollama.ResponseError, match="not found"):
        served.client.show("copied")


@sync_and_async
def test_create_of_an_uploaded_file(served: Served, asynchronous: bool, tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path, seed=9)
    digest = ask(served, asynchronous, lambda client: client.create_blob(weights))
    assert digest == f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"
    files = {"tiny.gguf": digest}
    assert ask(served, asynchronous, lambda client: client.create("bytes", files=files)).status == "success"
    details = served.client.show("bytes").details
    assert details
    assert details.family == "llama"
    served.client.delete("bytes")


@every_mode
def test_pull_of_a_new_name(served: Served, registry: OllamaRegistry, tmp_path: Path, mode: Mode) -> None:
    model = f"new{MODES.index(mode)}"
    registry.push(write_tiny_model(tmp_path, seed=10 + MODES.index(mode)).read_bytes(), model)
    name = f"{registry.host}/library/{model}"
    assert pull(served, mode, name)[-1].status == "success"
    assert served.client.show(name).capabilities == ["completion"]
    served.client.delete(name)
