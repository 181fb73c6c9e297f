"""The Anthropic client of PyPI against the gateway."""

from __future__ import annotations

import json

import anthropic
import pytest

from tests.support.fake_upstream import stream
from tests.support.gateway import gateway_with_upstream

_MESSAGE: dict[str, object] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "tiny",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 0},
}
_DATA: list[dict[str, object]] = [
    {"type": "message_start", "message": _MESSAGE},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 1},
    },
    {"type": "message_stop"},
]
EVENTS = [f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode() for data in _DATA]


async def test_a_message_streams_on_the_stable_and_the_beta_path() -> None:
    async with gateway_with_upstream(stream(EVENTS, content_type="text/event-stream")) as (_, gateway):
        base = f"http://127.0.0.1:{gateway.port}"
        async with anthropic.AsyncAnthropic(base_url=base, api_key="x", max_retries=0) as client:
            for messages in (client.messages, client.beta.messages):
                async with messages.stream(
                    model="tiny", max_tokens=5, messages=[{"role": "user", "content": "hi"}]
                ) as answer:
                    assert [text async for text in answer.text_stream] == ["Hello"]


async def test_the_anthropic_client_maps_the_errors() -> None:
    async with gateway_with_upstream() as (_, gateway):
        base = f"http://127.0.0.1:{gateway.port}"
        async with anthropic.AsyncAnthropic(base_url=base, api_key="x", max_retries=0) as client:
            with pytest.raises(anthropic.NotFoundError, match="model 'nope' not found"):
                await client.messages.create(model="nope", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
