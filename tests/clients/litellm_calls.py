"""What ``test_litellm.py`` has litellm do, in the environment that has it: prints one JSON object of all answers.

``python litellm_calls.py URL``. litellm wants another major version of ``openai`` than the other tests have.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import litellm
import openai

WHERE, WEATHER = "Where is Rome?", "What is the weather in Rome?"
PARIS = "What is the capital of France? Answer in one sentence."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "", "parameters": SCHEMA}}


def settings(provider: str, url: str, model: str) -> dict[str, Any]:
    """``ollama_chat`` and ``ollama`` speak Ollama's API, ``openai`` OpenAI's, ``anthropic`` Anthropic's."""
    base = f"{url}/v1" if provider == "openai" else url
    return {"model": f"{provider}/{model}", "api_base": base, "api_key": "none", "timeout": 120}


def asked(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 40}


def text_of(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def calls_of(answer: Any) -> list[Any]:
    calls = answer.choices[0].message.tool_calls or []
    return [[call.function.name, json.loads(call.function.arguments)] for call in calls]


async def asynchronously(where: dict[str, Any]) -> list[str]:
    whole = await litellm.acompletion(**where, **asked(PARIS))
    stream = await litellm.acompletion(**where, **asked(PARIS), stream=True)
    return [whole.choices[0].message.content, text_of([chunk async for chunk in stream])]


def chats(url: str, provider: str) -> dict[str, Any]:
    where = settings(provider, url, "tiny")
    whole = litellm.completion(**where, **asked(PARIS))
    return {
        "whole": whole.choices[0].message.content,
        "tokens": whole.usage.completion_tokens,
        "stream": text_of(list(litellm.completion(**where, **asked(PARIS), stream=True))),
        "async": asyncio.run(asynchronously(where)),
    }


def error(url: str, provider: str) -> list[str]:
    try:
        litellm.completion(**settings(provider, url, "nope"), **asked("hi"))
    except openai.OpenAIError as raised:  # the base of litellm's own
        return [type(raised).__name__, str(raised)]
    return []


def thought(url: str) -> list[str]:
    message = litellm.completion(**settings("ollama_chat", url, "clever"), **asked(WHERE), reasoning_effort="high")
    return [message.choices[0].message.reasoning_content, message.choices[0].message.content]


def main(url: str) -> dict[str, Any]:
    litellm.suppress_debug_info = True
    providers = ("ollama_chat", "ollama", "openai", "anthropic")
    tools = ("ollama_chat", "openai", "anthropic")
    vectors = {
        provider: litellm.embedding(**settings(provider, url, "minilm"), input=["hello", "fox"]).data
        for provider in ("ollama", "openai")
    }
    return {
        "chats": {provider: chats(url, provider) for provider in providers},
        "calls": {
            provider: calls_of(litellm.completion(**settings(provider, url, "clever"), **asked(WEATHER), tools=[TOOL]))
            for provider in tools
        },
        "thought": thought(url),
        "vectors": {provider: [entry["embedding"] for entry in data] for provider, data in vectors.items()},
        "errors": {provider: error(url, provider) for provider in providers},
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
