"""PyPI's ``langchain-ollama``: chats, tools, structured answers, completions and embeddings."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from ollama import ResponseError

from tests.clients.modes import Mode, every_mode, sync_and_async
from tests.clients.served_models import CHATS, CLEVER, EMBEDS, SCHEMA, TOOL, WEATHER, WHERE
from tests.local.served import START, Served
from tests.support import minilm

pytestmark = [
    pytest.mark.process,
    # its clients are closed by nobody: it offers no way to
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def no_client_left_over() -> Iterator[None]:
    """What nobody closed is collected here, and not in another module's test, where the warning is an error."""
    yield
    gc.collect()


def chat(served: Served, model: str, **fields: Any) -> ChatOllama:
    return ChatOllama(
        model=model,
        base_url=served.url,
        temperature=0,
        client_kwargs={"timeout": START},
        **{"num_predict": 40, **fields},
    )


def answer(mode: Mode, model: Any, given: object) -> Any:
    """The whole answer; of a stream, its chunks added up."""

    async def asynchronous() -> Any:
        if not mode.stream:
            return await model.ainvoke(given)
        return _sum([chunk async for chunk in model.astream(given)])

    if mode.asynchronous:
        return asyncio.run(asynchronous())
    return _sum(list(model.stream(given))) if mode.stream else model.invoke(given)


def _sum(chunks: list[Any]) -> Any:
    assert len(chunks) > 1
    first, *others = chunks
    for chunk in others:
        first = first + chunk
    return first


@every_mode
def test_a_chat(served: Served, mode: Mode) -> None:
    said = answer(mode, chat(served, CHATS), "What is the capital of France?")
    assert isinstance(said, AIMessage | AIMessageChunk)
    assert "Paris" in str(said.content)
    assert said.usage_metadata
    assert said.usage_metadata["output_tokens"] > 0
    assert said.response_metadata["done_reason"] in ("stop", "length")


@every_mode
def test_a_tool_is_called(served: Served, mode: Mode) -> None:
    said = answer(mode, chat(served, CLEVER).bind_tools([TOOL]), WEATHER)
    assert [(call["name"], call["args"]) for call in said.tool_calls] == [("get_weather", {"city": "Rome"})]


def test_a_tools_result_is_answered(served: Served) -> None:
    model = chat(served, CLEVER, reasoning=False)
    asked = model.bind_tools([TOOL]).invoke(WEATHER)
    result = ToolMessage("sunny", tool_call_id=asked.tool_calls[0]["id"], name="get_weather")
    assert "sunny" in str(model.invoke([HumanMessage(WEATHER), asked, result]).content)


@every_mode
def test_reasoning_is_told_apart(served: Served, mode: Mode) -> None:
    said = answer(mode, chat(served, CLEVER, reasoning=True), WHERE)
    assert said.additional_kwargs["reasoning_content"] == "Rome is a city."
    assert said.content == "Rome is in Italy."


def test_a_structured_answer(served: Served) -> None:
    model = chat(served, CHATS).with_structured_output({"title": "place", **SCHEMA}, method="json_schema")
    found = model.invoke(WHERE)
    assert isinstance(found, dict)
    assert isinstance(found["city"], str)


@every_mode
def test_a_completion(served: Served, mode: Mode) -> None:
    model = OllamaLLM(model=CHATS, base_url=served.url, temperature=0, num_predict=16, client_kwargs={"timeout": START})
    assert "Paris" in answer(mode, model, "What is the capital of France?")


@sync_and_async
def test_embeddings(served: Served, asynchronous: bool) -> None:
    model = OllamaEmbeddings(model=EMBEDS, base_url=served.url, client_kwargs={"timeout": START})
    texts = ["hello", "fox"]
    found = asyncio.run(model.aembed_documents(texts)) if asynchronous else model.embed_documents(texts)
    assert float(np.asarray(found[0], np.float32) @ minilm.reference("hello")) > 0.9999
    assert len(found) == 2


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (lambda served: chat(served, "nope").invoke("hi"), "model 'nope' not found"),
        (lambda served: chat(served, CHATS, reasoning=True).invoke("hi"), '"tiny" does not support thinking'),
        (lambda served: chat(served, CHATS).bind_tools([TOOL]).invoke("hi"), "does not support tools"),
    ],
)
def test_errors(served: Served, asked: Callable[[Served], object], text: str) -> None:
    with pytest.raises(ResponseError, match=text):
        asked(served)


def test_a_model_can_be_checked_for_when_the_client_is_made(served: Served) -> None:
    chat(served, CHATS, validate_model_on_init=True)
    with pytest.raises(ValueError, match="nope"):
        chat(served, "nope", validate_model_on_init=True)
