"""Soak test of an engine: concurrent requests that are short, long, cancelled, stopped, rejected or failing.

All requests are derived from one seed. A share of the decodes fails with the status codes of llama.cpp.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import aclosing

from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.llama.errors import EngineError
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.parameters import SamplingParameters
from corral_server.runner.sampling.text import TextChunk

_GRAMMARS = (
    None,
    None,
    None,
    Grammar("start: /[a-z ]+[.]/"),
    Grammar("start: /[{][a-z]*[}]/"),
    Grammar("start: ("),
    Grammar('start: "\\u0004"'),
)
_FAILURES = 0.03
"""Share of the decodes that fail."""


class EngineSoak:
    """``outcomes`` counts how requests ended: ``stop``, ``length``, ``cancelled``, or the name of an error."""

    def __init__(self, engine: LlamaEngine, *, seed: int = 1) -> None:
        self.outcomes: Counter[str] = Counter()
        self.tokens = 0
        self._engine = engine
        self._random = random.Random(seed)
        self._beginnings = [self._text(length) for length in (0, 5, 40, 100)]

    async def run(self, requests: int, *, concurrency: int = 20) -> None:
        left = iter(range(requests))

        async def client() -> None:
            for _ in left:
                await self._run_request()

        await asyncio.gather(*(client() for _ in range(concurrency)))

    async def _run_request(self) -> None:
        task, cancel_after = self._task(), self._cancel_after()
        try:
            outcome = await asyncio.wait_for(self._request(task, cancel_after), 120)
        except EngineError as error:
            outcome = type(error).__name__
        self.outcomes[outcome] += 1

    async def _request(self, task: GenerationTask, cancel_after: int | None) -> str:
        """Send a request and cancel it after ``cancel_after`` chunks: at once for 0, never for None."""
        if cancel_after == 0:
            asking = asyncio.ensure_future(self._request(task, None))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            return "cancelled"
        pieces = 0
        async with aclosing(self._engine.generate(task)) as items:
            async for item in items:
                if isinstance(item, GenerationResult):
                    self.tokens += len(item.tokens)
                    return item.reason
                pieces += isinstance(item, TextChunk)
                if pieces == cancel_after:
                    return "cancelled"
        raise AssertionError("the stream ended without a Finish")

    def _task(self) -> GenerationTask:
        draw = self._random
        prompt = self._engine.tokenize(
            draw.choice(self._beginnings) + self._text(draw.choice((1, 8, 30, 300))), **_PLAIN
        )
        return GenerationTask(
            tuple(prompt if draw.random() > 0.02 else (*prompt, 10**6)),
            SamplingParameters(
                temperature=draw.choice((0.0, 0.8, 2.0)),
                repeat_penalty=draw.choice((1.0, 1.3)),
                min_p=draw.choice((0.0, 0.1)),
                seed=draw.choice((-1, 7)),
            ),
            grammar=draw.choice(_GRAMMARS),
            stop=draw.choice(((), ("e",), ("th", "\n"), ("never generated",))),
            max_tokens=draw.choice((0, 1, 4, 16, 64, 300)),
            context_shift=draw.random() < 0.5,
            logprobs=draw.random() < 0.2,
            top_logprobs=draw.choice((0, 3)),
        )

    def _cancel_after(self) -> int | None:
        return self._random.choice((None, None, None, 0, 1, 3))

    def _text(self, length: int) -> str:
        return "".join(self._random.choice("abcdeth \n") for _ in range(length))


_PLAIN = {"add_special": True, "parse_special": False}


def make_decodes_fail(engine: LlamaEngine, *, seed: int = 1) -> None:
    """Make some decodes fail as llama.cpp's do: before computing (-1), after it (-3), or without free KV cells (1)."""
    draw, decode = random.Random(seed), engine._context.decode

    def failing() -> int:
        if draw.random() >= _FAILURES:
            return decode()
        kind = draw.choice((1, -1, -3))
        if kind == -3:
            decode()
        return kind

    setattr(engine._context, "decode", failing)  # noqa: B010  # mypy rejects an assignment to a method
