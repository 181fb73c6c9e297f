"""Many requests of every kind at once against one engine: short and long, cancelled, stopped, refused, and failing.

Everything is drawn from one seed. The engine's decode fails now and then, as llama.cpp's may.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import aclosing

from corral_server.runner.engine import LlamaEngine
from corral_server.runner.generation import EngineError, Finish, Piece, Sampling, Task

_GRAMMARS = (
    None,
    None,
    None,
    'root ::= [a-z ]+ "."',
    'root ::= "{" [a-z]* "}"',
    "root ::= (",
    "root ::= [^\\x00-\\U0010FFFF]",
)
_FAILURES = 0.03
"""The share of decodes that fail."""


class Soak:
    """``outcomes`` counts how requests ended: ``stop``, ``length``, ``cancelled``, or the name of an error."""

    def __init__(self, engine: LlamaEngine, *, seed: int = 1) -> None:
        self.outcomes: Counter[str] = Counter()
        self.tokens = 0
        self._engine = engine
        self._draw = random.Random(seed)
        self._beginnings = [self._text(length) for length in (0, 5, 40, 100)]

    async def run(self, requests: int, *, at_once: int = 20) -> None:
        left = iter(range(requests))

        async def client() -> None:
            for _ in left:
                await self._one()

        await asyncio.gather(*(client() for _ in range(at_once)))

    async def _one(self) -> None:
        task, patience = self._task(), self._patience()
        try:
            outcome = await asyncio.wait_for(self._ask(task, patience), 120)
        except EngineError as error:
            outcome = type(error).__name__
        self.outcomes[outcome] += 1

    async def _ask(self, task: Task, patience: int | None) -> str:
        """Leaves after ``patience`` pieces: at once when it is 0, never when it is None."""
        if patience == 0:
            asking = asyncio.ensure_future(self._ask(task, None))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            return "cancelled"
        pieces = 0
        async with aclosing(self._engine.generate(task)) as items:
            async for item in items:
                if isinstance(item, Finish):
                    self.tokens += len(item.generated)
                    return item.reason
                pieces += isinstance(item, Piece)
                if pieces == patience:
                    return "cancelled"
        raise AssertionError("the stream ended without a Finish")

    def _task(self) -> Task:
        draw = self._draw
        prompt = self._engine.tokenize(
            draw.choice(self._beginnings) + self._text(draw.choice((1, 8, 30, 300))), **_PLAIN
        )
        return Task(
            tuple(prompt if draw.random() > 0.02 else (*prompt, 10**6)),
            Sampling(
                temperature=draw.choice((0.0, 0.8, 2.0)),
                repeat_penalty=draw.choice((1.0, 1.3)),
                min_p=draw.choice((0.0, 0.1)),
                seed=draw.choice((-1, 7)),
            ),
            grammar=draw.choice(_GRAMMARS),
            stop=draw.choice(((), ("e",), ("th", "\n"), ("never said",))),
            max_tokens=draw.choice((0, 1, 4, 16, 64, 300)),
            shift=draw.random() < 0.5,
            logprobs=draw.random() < 0.2,
            top_logprobs=draw.choice((0, 3)),
        )

    def _patience(self) -> int | None:
        return self._draw.choice((None, None, None, 0, 1, 3))

    def _text(self, length: int) -> str:
        return "".join(self._draw.choice("abcdeth \n") for _ in range(length))


_PLAIN = {"add_special": True, "parse_special": False}


def make_decodes_fail(engine: LlamaEngine, *, seed: int = 1) -> None:
    """From now on some decodes fail as llama.cpp's do: before they begin, after they are done, or for want of room."""
    draw, decode = random.Random(seed), engine._context.decode

    def failing() -> int:
        if draw.random() >= _FAILURES:
            return decode()
        kind = draw.choice((1, -1, -3))
        if kind == -3:
            decode()
        return kind

    setattr(engine._context, "decode", failing)  # noqa: B010  # a method is not assigned to, for mypy
