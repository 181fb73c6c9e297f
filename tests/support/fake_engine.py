"""Engine without a model that generates a scripted output and records its tasks."""

from __future__ import annotations

import threading
from array import array
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from corral_core.contracts.runner_status import Offload, OffloadDevice
from corral_server.runner.engine.cache.context_shift import TOO_LONG
from corral_server.runner.engine.embedding import normalize
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.engine.metrics import EngineMetrics
from corral_server.runner.engine.prepared_image import PreparedImage, chunk_cells
from corral_server.runner.llama.errors import InvalidPrompt, PromptTooLong
from corral_server.runner.llama.vocabulary import SpecialTokens
from corral_server.runner.sampling.text import TextChunk
from tests.support.vocabulary import BYTE_COMPILER
from tests.support.waiting import auntil

BOS = 256
"""Tokens 0 to 255 are the bytes of UTF-8."""

OFFLOAD = Offload(1, 2, (OffloadDevice("Fake0", "a GPU", bytes=400, predicted=410),), "one layer fits")

Step = str | TextChunk | Exception | threading.Event


@dataclass
class FakeEngine:
    """Engine whose generations follow ``script``: yield a text or a chunk, raise an error, or wait for an event."""

    script: Sequence[Step] = ("Hello", ", world")
    reason: str = "stop"
    stop: str = ""
    context_length: int = 4096
    slots: int = 2
    size_bytes: int = 1000
    vram_bytes: int = 400
    offload: Offload = OFFLOAD
    accepts_images: bool = False
    stalled_for: float = 0.0
    adds_bos: bool = True
    bos_text: str = "<s>"
    eos_text: str = "</s>"
    special_tokens: SpecialTokens = field(default_factory=lambda: SpecialTokens(bos=BOS, adds_bos=True))
    rerank_template: str = ""
    tasks: list[GenerationTask] = field(default_factory=list)
    embedded: list[tuple[int, ...]] = field(default_factory=list)
    running: int = 0
    waiting: int = 0
    kv_cells_used: int = 0
    metrics: EngineMetrics = field(default_factory=EngineMetrics)
    closed: bool = False

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        parts = text.split(self.bos_text) if parse_special else [text]
        tokens = list(parts[0].encode())
        for part in parts[1:]:
            tokens += [BOS, *part.encode()]
        return [BOS, *tokens] if add_special and self.adds_bos else tokens

    def detokenize(self, tokens: Sequence[int]) -> str:
        return bytes(token for token in tokens if token >= 0 and token != BOS).decode()

    def prepare_image(self, data: bytes, sha256: str) -> PreparedImage:
        """Return an image of three cells between the tokens of ``(`` and ``)``; data with ``damaged`` is refused."""
        if not self.accepts_images:
            raise InvalidPrompt("the model has no projector, so it cannot see images")
        if b"damaged" in data:
            raise InvalidPrompt("the image could not be decoded")
        return PreparedImage(sha256, (ord("("), *chunk_cells(sha256, 0, 3), ord(")")))

    def token_bytes(self, token: int) -> bytes:
        if not 0 <= token <= BOS:
            raise ValueError("the token is not in the model's vocabulary")
        return bytes([token]) if token < BOS else self.bos_text.encode()

    async def generate(self, task: GenerationTask) -> AsyncGenerator[TextChunk | GenerationResult, None]:
        self.tasks.append(task)
        cells = {cell for image in task.images for cell in image.cells}
        if any(not 0 <= token <= BOS and token not in cells for token in task.prompt):
            raise InvalidPrompt("the prompt has a token that is not in the model's vocabulary")
        if task.grammar is not None:
            BYTE_COMPILER.compile(task.grammar)
        if len(task.prompt) >= self.context_length and not task.context_shift:
            raise PromptTooLong(TOO_LONG)
        self.running += 1
        try:
            for step in self.script:
                if isinstance(step, str):
                    yield TextChunk(step)
                elif isinstance(step, TextChunk):
                    yield step
                elif isinstance(step, Exception):
                    raise step
                else:
                    await _wait_for_event(step)
            yield self._finish(task)
        finally:
            self.running -= 1

    async def embed(self, inputs: Sequence[Sequence[int]], adapter: str = "") -> list[array[float]]:
        """Return vectors (number of tokens, first token, last token, 1); errors and events of the script apply."""
        self.embedded.extend(tuple(tokens) for tokens in inputs)
        if any(not tokens for tokens in inputs):
            raise InvalidPrompt("the input has no tokens")
        self.running += 1
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, threading.Event):
                    await _wait_for_event(step)
        finally:
            self.running -= 1
        return [normalize(array("f", (len(tokens), tokens[0], tokens[-1], 1))) for tokens in inputs]

    def close(self) -> None:
        self.closed = True

    def prompt_text(self) -> str:
        """Return the prompt of the last task."""
        return self.detokenize(self.tasks[-1].prompt)

    def _finish(self, task: GenerationTask) -> GenerationResult:
        generated = tuple(range(sum(isinstance(step, str | TextChunk) for step in self.script)))
        return GenerationResult(
            reason="length" if self.reason == "length" else "stop",
            prompt_tokens=len(task.prompt),
            cached_tokens=0,
            tokens=generated,
            prefill_ns=1_000,
            decode_ns=2_000,
            stop_string=self.stop,
        )


async def _wait_for_event(event: threading.Event) -> None:
    await auntil(event.is_set, timeout=60)
