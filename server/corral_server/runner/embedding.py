"""Embeddings on the engine's thread: inputs of all requests in one batch, a vector for each, pooled by llama.cpp.

What always holds: requests take turns, so one of thousands of inputs holds up another by one batch only; an input that
attends to itself as a whole (an encoder's, and every mean) is in one batch as a whole, a causal model's last token may
come in pieces between the steps of running streams; a batch has inputs of one adapter only, because llama.cpp applies
its adapters to all of it; every cell is given back when its vector was read.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import mul
from typing import TypeAlias

from corral_server.runner.generation import EngineError, EngineFailed, InvalidPrompt, PromptTooLong
from corral_server.runner.llama import Adapter, ContextOptions, LlamaContext, LlamaModel
from corral_server.runner.pace import Pace

log = logging.getLogger("corral.runner.engine")

Vector: TypeAlias = "array[float]"
"""Of type ``f``."""

TOO_LONG = "the input length exceeds the context length"
RANK = 4
"""llama.cpp's pooling type of models that score a text in place of embedding it."""
SEQUENCES = 64
BATCH = 512
"""Tokens; larger batches of an encoder are slower, for its attention passes over all the batch."""


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """``pooling`` as llama.cpp counts, -1 the model's own. ``pieces``: a long input may be read in several batches.

    ``only``: the model does nothing else, so it needs no memory for generations.
    """

    pooling: int = -1
    pieces: bool = False
    only: bool = False


def context_options(options: EmbeddingOptions, length: int, threads: int) -> ContextOptions:
    """For inputs of up to ``length`` tokens. llama.cpp aborts unless the sequences divide the batch."""
    batch = min(BATCH, length) if options.pieces else length
    batch = -(-batch // SEQUENCES) * SEQUENCES
    cells = length + batch if options.pieces else batch
    return ContextOptions(
        length=cells, sequences=SEQUENCES, batch=batch, threads=threads, unified=True, pooling=options.pooling
    )


@dataclass(eq=False, slots=True)
class Job:
    """One request's inputs, as tokens. ``future`` belongs to the event loop that waits; ``closed`` when nobody does.

    ``adapter`` is the name of the one that they are read with, empty for the model as it is.
    """

    inputs: Sequence[Sequence[int]]
    future: asyncio.Future[list[Vector]]
    adapter: str = ""
    closed: bool = False
    begun: int = 0
    vectors: dict[int, Vector] = field(default_factory=dict)

    def resolve(self, error: EngineError | None = None) -> None:
        """From any thread."""
        try:
            self.future.get_loop().call_soon_threadsafe(self._resolve, error)
        except RuntimeError:  # the loop is closed, and its reader with it
            self.closed = True

    def _resolve(self, error: EngineError | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result([self.vectors[index] for index in range(len(self.inputs))])


@dataclass(eq=False, slots=True)
class _Reading:
    """An input that has a sequence; its first ``done`` tokens are in the memory."""

    job: Job
    index: int
    sequence: int
    done: int = 0

    @property
    def left(self) -> int:
        return len(self.job.inputs[self.index]) - self.done


class Embedder:
    """The context for embeddings, made when the first input comes unless it is given; for one thread but ``add``."""

    def __init__(
        self,
        model: LlamaModel,
        options: EmbeddingOptions,
        make: Callable[[], LlamaContext],
        *,
        length: int,
        adapters: Mapping[str, Adapter] = {},
    ) -> None:
        self._adapters = adapters
        self._adapter = ""
        self._model = model
        self._options = options
        self._make = make
        self._context: LlamaContext | None = None
        self._length = length
        self._jobs: deque[Job] = deque()
        self._readings: list[_Reading] = []
        self._free = list(range(SEQUENCES))
        self._pace = Pace(BATCH)

    @property
    def busy(self) -> bool:
        return bool(self._jobs or self._readings)

    @property
    def only(self) -> bool:
        """Whether the model does nothing else."""
        return self._options.only

    @property
    def buffers(self) -> dict[str, int]:
        """Bytes of the context that this one made for itself."""
        return self._context.buffers if self._context is not None and not self._options.only else {}

    def check(self, inputs: Sequence[Sequence[int]]) -> None:
        """Raises InvalidPrompt and PromptTooLong."""
        for tokens in inputs:
            if not tokens:
                raise InvalidPrompt("the input has no tokens")
            if len(tokens) > self._length:
                raise PromptTooLong(TOO_LONG)
            if not self._model.knows(tokens):
                raise InvalidPrompt("the input has a token that is not in the model's vocabulary")

    def add(self, job: Job) -> None:
        self._jobs.append(job)

    def step(self, *, streaming: bool) -> None:
        """Decodes one batch; a failure is told to the requests in it and to no others."""
        if not self.busy:
            return
        try:
            if self._context is None:
                self._context = self._make()
            self._run(self._context, streaming=streaming)
        except EngineError as error:
            log.warning("embedding failed: %s", error)
            self._drop(error)

    def fail(self, error: EngineError) -> None:
        """Ends everything that was asked for."""
        self._drop(error)
        for job in self._jobs:
            job.resolve(error)
        self._jobs.clear()

    def close(self) -> None:
        if self._context is not None:
            self._context.close()

    def _run(self, context: LlamaContext, *, streaming: bool) -> None:
        self._forget_closed(context)
        room = min(context.capacity, self._pace.allowance(streaming=streaming) if self._options.pieces else BATCH)
        context.clear_batch()
        shares = self._shares(context, room)
        for reading, count in shares:
            tokens = reading.job.inputs[reading.index][reading.done : reading.done + count]
            context.add(reading.sequence, reading.done, tokens, outputs=count)
        if not shares:
            return
        self._use(context, shares[0][0].job.adapter)
        start = time.perf_counter()
        if status := context.decode():
            raise EngineFailed(f"llama.cpp could not decode the batch (status {status})")
        self._pace.note(sum(count for _, count in shares), time.perf_counter() - start)
        for reading, count in shares:
            reading.done += count
            if reading.left == 0:
                self._finish(reading, context)

    def _use(self, context: LlamaContext, adapter: str) -> None:
        if adapter != self._adapter:
            context.use(self._adapters.get(adapter))
            self._adapter = adapter

    def _shares(self, context: LlamaContext, room: int) -> list[tuple[_Reading, int]]:
        """What goes into this batch: what was begun, then new inputs, one of each request in turn."""
        shares = []
        for reading in self._readings:
            if room > 0:
                shares.append((reading, min(reading.left, room)))
                room -= shares[-1][1]
        while self._jobs and self._free and (room > 0):
            job = self._jobs.popleft()
            if job.closed:
                continue
            size = len(job.inputs[job.begun])
            whole = size > room and not self._options.pieces
            if shares and (whole or job.adapter != shares[0][0].job.adapter):
                self._jobs.appendleft(job)
                break
            reading = _Reading(job, job.begun, self._free.pop())
            self._readings.append(reading)
            shares.append((reading, min(size, room) if self._options.pieces else size))
            room -= shares[-1][1]
            job.begun += 1
            if job.begun < len(job.inputs):
                self._jobs.append(job)
        return shares

    def _finish(self, reading: _Reading, context: LlamaContext) -> None:
        job, vector = reading.job, context.pooled(reading.sequence)
        self._release(reading, context)
        if not math.isfinite(sum(vector)):
            job.closed = True
            job.resolve(EngineFailed("the embedding has a value that is not a number"))
            return
        job.vectors[reading.index] = vector if context.pooling == RANK else normalized(vector)
        if len(job.vectors) == len(job.inputs):
            job.resolve()

    def _forget_closed(self, context: LlamaContext) -> None:
        for reading in [reading for reading in self._readings if reading.job.closed]:
            self._release(reading, context)

    def _release(self, reading: _Reading, context: LlamaContext) -> None:
        context.remove(reading.sequence)
        self._readings.remove(reading)
        self._free.append(reading.sequence)

    def _drop(self, error: EngineError) -> None:
        """Fails the requests that have an input in the memory, or that were to make the context; nothing is kept."""
        failed = {reading.job for reading in self._readings} or set(self._jobs)
        for job in failed:
            job.closed = True
            job.resolve(error)
        self._jobs = deque(job for job in self._jobs if not job.closed)
        self._readings.clear()
        self._free = list(range(SEQUENCES))
        if self._context is not None:
            self._context.clear()


def normalized(vector: Vector) -> Vector:
    """Of length 1; what is all zeros stays so."""
    norm = math.sqrt(sum(map(mul, vector, vector)))
    return array("f", [value / norm for value in vector]) if norm > 0 else vector
