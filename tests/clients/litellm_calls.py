"""The calls of ``test_litellm.py``, run in the environment with litellm; prints one JSON object with all results.

``python litellm_calls.py URL EXTRA``, the second a server with a reranker and a Model for images. litellm requires a
different major version of ``openai`` than the other tests.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import litellm
import openai

WHERE, WEATHER = "Where is Rome?", "What is the weather in Rome?"
RANKED = {"query": "q", "documents": ["hello", "The quick brown fox", "q"]}
IMAGE = (  # 2 by 2 pixels
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGM4cYLhxAkACWYDIUK1MmAAAAAASUVORK5CYII="
)
PARIS = "What is the capital of France? Answer in one sentence."
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "", "parameters": SCHEMA}}


def settings(provider: str, url: str, model: str) -> dict[str, Any]:
    """The providers ``ollama_chat`` and ``ollama`` use Ollama's API, ``openai`` OpenAI's, ``anthropic`` Anthropic's."""
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


def prompt_tokens(extra: str, provider: str) -> list[int] | str:
    """Return the tokens of a prompt without and with an image, or the error where llama.cpp has no images."""
    image = {"type": "image_url", "image_url": {"url": IMAGE}}
    contents = [[{"type": "text", "text": WHERE}, *images] for images in ([], [image])]
    where = settings(provider, extra, "seer") | {"max_tokens": 4}
    try:
        answers = [litellm.completion(**where, messages=[{"role": "user", "content": each}]) for each in contents]
    except openai.OpenAIError as raised:
        return str(raised)
    return [answer.usage.prompt_tokens for answer in answers]


def ranked(extra: str, provider: str) -> list[Any]:
    """The documents are not returned to ``infinity``, which reads a string where Jina and Cohere have an object."""
    where = settings(provider, extra, "ranker") | {"return_documents": provider != "infinity"}
    answer = litellm.rerank(**where, query=RANKED["query"], documents=RANKED["documents"], top_n=2)
    return list(answer.results)


def main(url: str, extra: str) -> dict[str, Any]:
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
        "images": {provider: prompt_tokens(extra, provider) for provider in providers},
        "ranks": {provider: ranked(extra, provider) for provider in ("jina_ai", "cohere", "infinity", "hosted_vllm")},
        "errors": {provider: error(url, provider) for provider in providers},
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
