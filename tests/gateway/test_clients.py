"""The Ollama and OpenAI clients of PyPI against the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Awaitable, Callable

import ollama
import openai
import pytest

from corral_server.gateway.proxy.relay import STREAM_BROKE
from tests.support.fake_upstream import Call, reply, stream
from tests.support.gateway import gateway_with_upstream

LINES = [
    json.dumps({"model": "tiny", "message": {"role": "assistant", "content": text}, "done": done}).encode() + b"\n"
    for text, done in (("Hello", False), (" there", False), ("", True))
]
EVENTS = [
    b"data: "
    + json.dumps(
        {
            "id": "1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "tiny",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
        }
    ).encode()
    + b"\n\n"
    for text in ("Hello", " there")
]


async def test_ollama_streams_a_chat() -> None:
    async with gateway_with_upstream(stream(LINES)) as (_, gateway):
        client = ollama.AsyncClient(f"http://127.0.0.1:{gateway.port}")
        messages = [{"role": "user", "content": "hi"}]
        parts = [part async for part in await client.chat("tiny", messages, stream=True)]
        await client._client.aclose()
    assert [part.message.content for part in parts] == ["Hello", " there", ""]


async def test_ollama_lists_shows_and_reports_errors() -> None:
    async with gateway_with_upstream() as (_, gateway):
        client = ollama.AsyncClient(f"http://127.0.0.1:{gateway.port}")
        listed = await client.list()
        shown = await client.show("tiny")
        with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as caught:
            await client.chat("nope")
        await client._client.aclose()
    assert [model.model for model in listed.models] == ["tiny:latest"]
    assert shown.capabilities == ["completion"]
    assert caught.value.status_code == 404


async def test_openai_streams_a_chat_and_lists_models() -> None:
    async with gateway_with_upstream(stream([*EVENTS, b"data: [DONE]\n\n"], content_type="text/event-stream")) as (
        _,
        gateway,
    ):
        base = f"http://127.0.0.1:{gateway.port}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="x", max_retries=0) as client:
            parts = [
                part
                async for part in await client.chat.completions.create(
                    model="tiny", messages=[{"role": "user", "content": "hi"}], stream=True
                )
            ]
            models = [model.id async for model in client.models.list()]
    assert [part.choices[0].delta.content for part in parts] == ["Hello", " there"]
    assert models == ["tiny:latest"]


async def test_openai_maps_the_errors() -> None:
    async with gateway_with_upstream(reply()) as (_, gateway):
        base = f"http://127.0.0.1:{gateway.port}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="x", max_retries=0) as client:
            with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
                await client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("api", ["chat", "completions", "responses"])
async def test_openai_reports_an_incomplete_stream(api: str) -> None:
    async def breaks_off(call: Call) -> None:
        await call.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await call.chunk(EVENTS[0])
        call.close()

    async with gateway_with_upstream(breaks_off) as (_, gateway):
        base = f"http://127.0.0.1:{gateway.port}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key="x", max_retries=0) as client:
            asked: dict[str, Callable[[], Awaitable[AsyncIterable[object]]]] = {
                "chat": lambda: client.chat.completions.create(model="tiny", messages=[], stream=True),
                "completions": lambda: client.completions.create(model="tiny", prompt="hi", stream=True),
                "responses": lambda: client.responses.create(model="tiny", input="hi", stream=True),
            }
            parts = aiter(await asked[api]())
            assert await anext(parts)
            with pytest.raises(openai.APIError, match=STREAM_BROKE):
                await anext(parts)
