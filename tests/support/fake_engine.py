"""An engine without a model: it says what the test scripts, and keeps what it was asked."""

from __future__ import annotations

import threading
from array import array
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from corral_server.runner.embedding import normalized
from corral_server.runner.generation import Finish, InvalidGrammar, InvalidPrompt, Piece, PromptTooLong, Task
from corral_server.runner.measures import EngineMeasures
from corral_server.runner.window import TOO_LONG
from tests.support.waiting import auntil

BOS = 256
"""Tokens 0 to 255 are the bytes of UTF-8."""
IMPOSSIBLE = "impossible"
"""A grammar that contains this word does not compile."""

Step = str | Piece | Exception | threading.Event


@dataclass
class FakeEngine:
    """``script`` is what every generation does: texts and pieces are yielded, errors raised, events waited for."""

    script: Sequence[Step] = ("Hello", ", world")
    reason: str = "stop"
    stop: str = ""
    context_length: int = 4096
    slots: int = 2
    size_bytes: int = 1000
    vram_bytes: int = 400
    stalled_for: float = 0.0
    adds_bos: bool = True
    bos_text: str = "<s>"
    eos_text: str = "</s>"
    tasks: list[Task] = field(default_factory=list)
    embedded: list[tuple[int, ...]] = field(default_factory=list)
    running: int = 0
    waiting: int = 0
    cells_held: int = 0
    measures: EngineMeasures = field(default_factory=EngineMeasures)
    closed: bool = False

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        parts = text.split(self.bos_text) if parse_special else [text]
        tokens = list(parts[0].encode())
        for part in parts[1:]:
            tokens += [BOS, *part.encode()]
        return [BOS, *tokens] if add_special and self.adds_bos else tokens

    def detokenize(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token != BOS).decode()

    async def generate(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        self.tasks.append(task)
        if any(not 0 <= token <= BOS for token in task.prompt):
            raise InvalidPrompt("the prompt has a token that is not in the model's vocabulary")
        if task.grammar is not None and IMPOSSIBLE in task.grammar:
            raise InvalidGrammar("the grammar does not compile: it is impossible")
        if len(task.prompt) >= self.context_length and not task.shift:
            raise PromptTooLong(TOO_LONG)
        self.running += 1
        try:
            for step in self.script:
                if isinstance(step, str):
                    yield Piece(step)
                elif isinstance(step, Piece):
                    yield step
                elif isinstance(step, Exception):
                    raise step
                else:
                    await _happens(step)
            yield self._finish(task)
        finally:
            self.running -= 1

    async def embed(self, inputs: Sequence[Sequence[int]], adapter: str = "") -> list[array[float]]:
        """Of four dimensions: how many tokens, the first, the last, 1; scripted as a generation is, but for texts."""
        self.embedded.extend(tuple(tokens) for tokens in inputs)
        if any(not tokens for tokens in inputs):
            raise InvalidPrompt("the input has no tokens")
        self.running += 1
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, threading.Event):
                    await _happens(step)
        finally:
            self.running -= 1
        return [normalized(array("f", (len(tokens), tokens[0], tokens[-1], 1))) for tokens in inputs]

    def close(self) -> None:
        self.closed = True

    def prompt_text(self) -> str:
        """The prompt of the last task."""
        return self.detokenize(self.tasks[-1].prompt)

    def _finish(self, task: Task) -> Finish:
        generated = tuple(range(sum(isinstance(step, str | Piece) for step in self.script)))
        return Finish(
            reason="length" if self.reason == "length" else "stop",
            prompt_tokens=len(task.prompt),
            cached_tokens=0,
            generated=generated,
            prompt_ns=1_000,
            generate_ns=2_000,
            stop=self.stop,
        )


async def _happens(event: threading.Event) -> None:
    await auntil(event.is_set, timeout=60)
