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
from tests.clients.served_models import CHATS, CLEVER, EMBEDS, SCHEMA, SEES, TOOL, WEATHER, WHERE
from tests.local.served import START, Served
from tests.support import minilm
from tests.support.pictures import encoded
from tests.support.projectors import ROWS, require_mtmd

pytestmark = [
    pytest.mark.process,
    # langchain-ollama has no way to close its clients
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def no_client_left_over() -> Iterator[None]:
    """Collect unclosed clients here, and not in a test of another module, where the warning would be an error."""
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
    """Return the whole response, or the sum of the chunks of a stream."""

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


def test_a_tool_result_is_used(served: Served) -> None:
    model = chat(served, CLEVER, reasoning=False)
    asked = model.bind_tools([TOOL]).invoke(WEATHER)
    result = ToolMessage("sunny", tool_call_id=asked.tool_calls[0]["id"], name="get_weather")
    assert "sunny" in str(model.invoke([HumanMessage(WEATHER), asked, result]).content)


@every_mode
def test_reasoning_is_separated(served: Served, mode: Mode) -> None:
    said = answer(mode, chat(served, CLEVER, reasoning=True), WHERE)
    assert said.additional_kwargs["reasoning_content"] == "Rome is a city."
    assert said.content == "Rome is in Italy."


def test_structured_output(served: Served) -> None:
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
    assert float(np.asarray(found[0], np.float32) @ minilm.reference_embedding("hello")) > 0.9999
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


@every_mode
def test_a_chat_with_an_image(extra: Served, mode: Mode) -> None:
    require_mtmd()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded()}"}}
    plain, seen = (
        answer(mode, chat(extra, SEES, num_predict=4), [HumanMessage([{"type": "text", "text": WHERE}, *images])])
        for images in ([], [image])
    )
    assert seen.usage_metadata["input_tokens"] >= plain.usage_metadata["input_tokens"] + ROWS


def test_num_ctx_shortens_the_history(served: Served) -> None:
    history = [message for _ in range(8) for message in (HumanMessage(WHERE), AIMessage("Rome is in Italy."))]
    asked = [*history, HumanMessage(WHERE)]
    whole, short = (chat(served, CHATS, num_predict=4, num_ctx=length).invoke(asked) for length in (1024, 96))
    assert whole.usage_metadata
    assert short.usage_metadata
    assert short.usage_metadata["input_tokens"] <= 96 < whole.usage_metadata["input_tokens"]


def test_the_client_can_validate_the_model_name(served: Served) -> None:
    chat(served, CHATS, validate_model_on_init=True)
    with pytest.raises(ValueError, match="nope"):
        chat(served, "nope", validate_model_on_init=True)
