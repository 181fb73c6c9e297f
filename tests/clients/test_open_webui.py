"""The requests of Open WebUI's backend, and what it and its page read in the responses."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients import open_webui_requests as requests
from tests.clients.open_webui import Connection, Refused, Request
from tests.clients.served_models import CHATS, CLEVER, EMBEDS, SEES, TOOL, WEATHER
from tests.local.served import START, Served
from tests.support import minilm
from tests.support.ollama_registry import OllamaRegistry
from tests.support.projectors import ROWS, require_mtmd
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until

pytestmark = pytest.mark.process


@pytest.fixture
def connection(served: Served) -> Iterator[Connection]:
    """A connection; the models that the test has created are deleted, which other tests would list."""
    connection = Connection(served.url)
    before = ids(connection)
    yield connection
    for model in ids(connection) - before:
        connection.done(requests.delete(model))


@pytest.fixture
def sees(extra: Served) -> Connection:
    require_mtmd()
    return Connection(extra.url)


def ids(connection: Connection) -> set[str]:
    return {model["model"] for model in connection.json(requests.TAGS)["models"]}


def loaded(connection: Connection) -> dict[str, str]:
    return {model["model"]: model["expires_at"] for model in connection.json(requests.LOADED)["models"]}


def text(parts: Sequence[dict[str, Any]], member: str = "content") -> str:
    return "".join(part["message"].get(member, "") for part in parts)


def like_hello(vector: list[float]) -> bool:
    return float(np.asarray(vector, np.float32) @ minilm.reference_embedding("hello")) > 0.9999


def test_a_connection_is_verified_by_a_version_of_numbers(connection: Connection) -> None:
    version = connection.json(requests.VERSION)["version"]
    assert tuple(map(int, version.split("."))) > (0, 6)


def test_listed_models_have_an_id_and_a_name(connection: Connection) -> None:
    models = connection.json(requests.TAGS)["models"]
    assert [model["name"] for model in models] == [model["model"] for model in models]
    assert len({model["model"] for model in models}) == len(models)


def test_loaded_models_are_listed_by_id_with_a_time_that_python_reads(connection: Connection) -> None:
    connection.lines(requests.STREAM)
    found = loaded(connection)
    assert set(found) <= ids(connection)
    ends = datetime.fromisoformat(found[requests.name(CHATS)])
    assert 500 < ends.timestamp() - time.time() < 601


def test_unload(connection: Connection) -> None:
    connection.lines(requests.STREAM)
    connection.done(requests.unload(CHATS))
    until(lambda: requests.name(CHATS) not in loaded(connection), START)


def test_show(connection: Connection) -> None:
    assert connection.json(requests.show(CLEVER))["capabilities"] == ["completion", "tools", "thinking"]


def test_a_pull_has_progress_and_ends_with_success(
    connection: Connection, registry: OllamaRegistry, tmp_path: Path
) -> None:
    registry.push(write_tiny_model(tmp_path, seed=31).read_bytes(), "webui")
    model = f"{registry.host}/library/webui:latest"
    lines = connection.lines(requests.pull(model))
    layers = [line for line in lines if "digest" in line]
    assert layers
    assert all(0 <= line.get("completed", 0) <= line["total"] for line in layers)
    assert lines[-1] == {"status": "success"}
    assert model in ids(connection)


def test_a_pull_that_fails_ends_with_an_error(connection: Connection, registry: OllamaRegistry) -> None:
    lines = connection.lines(requests.pull(f"{registry.host}/library/nope"))
    assert lines[-1] == {"error": "pull model manifest: file does not exist"}


def test_create_copy_and_delete(connection: Connection) -> None:
    lines = connection.lines(requests.create("brief", CHATS, "Be brief."))
    assert lines[-1] == {"status": "success"}
    connection.done(requests.copy("brief:latest", "shorter"))
    assert "SYSTEM Be brief." in connection.json(requests.show("shorter"))["modelfile"]
    connection.done(requests.delete("brief:latest"))
    assert {"brief:latest", "shorter:latest"} & ids(connection) == {"shorter:latest"}


def test_an_uploaded_file_becomes_a_model(connection: Connection, tmp_path: Path) -> None:
    data = write_tiny_model(tmp_path, seed=32).read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    connection.upload(f"/api/blobs/{digest}", data)
    assert connection.json(requests.create_of_file("uploaded", "uploaded.gguf", digest)) == {"status": "success"}
    assert "uploaded:latest" in ids(connection)


def test_a_streamed_chat_ends_with_the_reason_and_the_counts(connection: Connection) -> None:
    parts = connection.lines(requests.STREAM)
    assert "Paris" in text(parts)
    assert [part["done"] for part in parts] == [*[False] * (len(parts) - 1), True]
    last = parts[-1]
    assert last["done_reason"] in ("stop", "length")
    counts = ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count")
    assert all(type(last[member]) is int and last[member] > 0 for member in (*counts, "eval_duration"))


def test_all_parameters_of_the_page_are_accepted(connection: Connection) -> None:
    parts = connection.lines(requests.PARAMETERS)
    assert text(parts)
    assert parts[-1]["eval_count"] <= 4


def test_a_task_gets_a_whole_answer(connection: Connection) -> None:
    answer = connection.json(requests.TITLE)
    assert (answer["done"], answer["message"]["role"]) == (True, "assistant")
    assert answer["message"]["content"]


def test_a_schema_is_enforced(connection: Connection) -> None:
    assert isinstance(json.loads(connection.json(requests.STRUCTURED)["message"]["content"])["city"], str)


def test_thinking_is_separated(connection: Connection) -> None:
    parts = connection.lines(requests.THINKING)
    assert (text(parts, "thinking"), text(parts)) == ("Rome is a city.", "Rome is in Italy.")


def test_a_native_tool_is_called_and_its_result_is_found_by_its_id(connection: Connection) -> None:
    parts = connection.lines(requests.TOOLS)
    (call,) = [call for part in parts for call in part["message"].get("tool_calls", [])]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("get_weather", {"city": "Rome"})
    assert "sunny" in text(connection.lines(requests.with_result(call["id"])))


def test_embeddings_of_documents(connection: Connection) -> None:
    first, _ = connection.json(requests.EMBED)["embeddings"]
    assert like_hello(first)


def test_the_older_embeddings(connection: Connection) -> None:
    assert like_hello(connection.json(requests.EMBEDDING)["embedding"])


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (requests.chat("nope", requests.said("hi")), 404, "model 'nope:latest' not found"),
        (requests.show("nope"), 404, "model 'nope:latest' not found"),
        (requests.delete("nope:latest"), 404, "model 'nope:latest' not found"),
        (requests.chat(CHATS, requests.said(WEATHER), tools=[TOOL]), 400, "does not support tools"),
        (requests.chat(CHATS, requests.said("hi"), think=True), 400, "does not support thinking"),
        (requests.chat(EMBEDS, requests.said("hi")), 400, "does not support chat"),
        (requests.IMAGE_TO_OTHER, 400, "does not support images"),
    ],
)
def test_an_error_is_json_with_a_text(connection: Connection, request_: Request, status: int, error: str) -> None:
    with pytest.raises(Refused) as refused:
        connection.lines(request_)
    assert refused.value.status == status
    assert isinstance(refused.value.error, str)
    assert error in refused.value.error


def test_a_chat_with_an_image(sees: Connection) -> None:
    assert "vision" in sees.json(requests.show(SEES))["capabilities"]
    seen, alone = (sees.lines(request)[-1] for request in (requests.IMAGE, requests.IMAGE_ALONE))
    assert seen["prompt_eval_count"] > alone["prompt_eval_count"] > ROWS


def test_an_image_of_an_openai_connection_takes_its_rows_of_the_prompt(sees: Connection) -> None:
    seen, plain = (sees.json(request)["usage"] for request in (requests.COMPLETION_IMAGE, requests.COMPLETION_TEXT))
    assert seen["prompt_tokens"] == plain["prompt_tokens"] + ROWS


def test_models_of_an_openai_connection(connection: Connection) -> None:
    assert {model["id"] for model in connection.json(requests.MODELS)["data"]} == ids(connection)


def test_a_streamed_completion_has_the_usage_and_ends_with_done(connection: Connection) -> None:
    *events, done = connection.events(requests.COMPLETION_STREAM)
    assert done == "[DONE]"
    chunks = [json.loads(event) for event in events]
    content = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "Paris" in "".join(content)
    assert chunks[-1]["usage"]["completion_tokens"] > 0


def test_a_whole_completion(connection: Connection) -> None:
    answer = connection.json(requests.COMPLETION)
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")


def test_a_completion_calls_a_native_tool(connection: Connection) -> None:
    chunks = [json.loads(event) for event in connection.events(requests.COMPLETION_TOOLS)[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    (call,) = [call for choice in choices for call in choice["delta"].get("tool_calls") or []]
    assert (call["index"], call["function"]["name"]) == (0, "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"]


def test_a_connection_of_the_type_responses(connection: Connection) -> None:
    events = [json.loads(event) for event in connection.events(requests.RESPONSES)]
    assert "Paris" in "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert events[-1]["response"]["usage"]["output_tokens"] > 0


def test_embeddings_of_an_openai_connection(connection: Connection) -> None:
    first, _ = connection.json(requests.EMBEDDINGS)["data"]
    assert like_hello(first["embedding"])


def test_an_error_of_an_openai_connection_has_a_message(connection: Connection) -> None:
    with pytest.raises(Refused) as refused:
        connection.json(requests.completion("nope", requests.said("hi"), stream=False))
    assert refused.value.status == 404
    assert isinstance(refused.value.error, dict)
    assert "not found" in refused.value.error["message"]


def test_an_external_reranker(extra: Served) -> None:
    results = Connection(extra.url).json(requests.RERANK)["results"]
    assert sorted(result["index"] for result in results) == [0, 1]
    assert all(isinstance(result["relevance_score"], float) for result in results)
