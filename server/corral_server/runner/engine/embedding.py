"""Embeddings on the engine's thread: inputs of all requests in one batch, one pooled vector for each.

Invariants:

- requests take turns, so a request of thousands of inputs delays another one by one batch only;
- an input that attends to itself as a whole (encoders, mean pooling) is in one batch as a whole; an input of a causal
  model with last-token pooling may be split over several batches, between the steps of running streams;
- a batch has inputs of one adapter only, because llama.cpp applies its adapters to a whole batch;
- the cells of an input are freed once its vector was read.
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

from corral_core.weights.load_config import DEFAULT_BATCH_SIZE, MAX_EMBEDDING_INPUTS, embedding_context
from corral_server.runner.engine.prefill_budget import PrefillBudget
from corral_server.runner.llama.context import POOLING_RANK, ContextOptions, LlamaContext
from corral_server.runner.llama.errors import EngineError, EngineFailed, InvalidPrompt, PromptTooLong
from corral_server.runner.llama.model import LlamaModel, LoraAdapter

log = logging.getLogger("corral.runner.engine")

Vector: TypeAlias = "array[float]"
"""32-bit floats, array type ``f``."""

TOO_LONG = "the input length exceeds the context length"


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """``pooling`` is a value of llama.cpp's ``enum llama_pooling_type``, -1 the model's own.

    ``chunked``: a long input may be computed in several batches. ``embedding_only``: the model does not generate, so no
    memory is allocated for generations.
    """

    pooling: int = -1
    chunked: bool = False
    embedding_only: bool = False


def context_options(options: EmbeddingOptions, length: int, threads: int) -> ContextOptions:
    """Return the options of a context for inputs of up to ``length`` tokens."""
    size = embedding_context(length, chunked=options.chunked)
    return ContextOptions(
        length=size.cells,
        sequences=MAX_EMBEDDING_INPUTS,
        batch_size=size.batch_size,
        threads=threads,
        unified=True,
        pooling=options.pooling,
    )


@dataclass(eq=False, slots=True)
class EmbeddingJob:
    """The tokenized inputs of one request. ``future`` belongs to the event loop of the request.

    ``adapter`` is the name of a loaded adapter, empty for the model without one. A ``cancelled`` job has no reader.
    """

    inputs: Sequence[Sequence[int]]
    future: asyncio.Future[list[Vector]]
    adapter: str = ""
    cancelled: bool = False
    started_inputs: int = 0
    vectors: dict[int, Vector] = field(default_factory=dict)

    def resolve(self, error: EngineError | None = None) -> None:
        """Complete the future with the vectors or the error; from any thread."""
        try:
            self.future.get_loop().call_soon_threadsafe(self._resolve, error)
        except RuntimeError:  # the loop is closed, so its reader is gone
            self.cancelled = True

    def _resolve(self, error: EngineError | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result([self.vectors[index] for index in range(len(self.inputs))])


@dataclass(eq=False, slots=True)
class _ActiveInput:
    """An input with a sequence of its own; its first ``computed_tokens`` are in the memory."""

    job: EmbeddingJob
    index: int
    sequence: int
    computed_tokens: int = 0

    @property
    def remaining_tokens(self) -> int:
        return len(self.job.inputs[self.index]) - self.computed_tokens

    def next_tokens(self, count: int) -> Sequence[int]:
        return self.job.inputs[self.index][self.computed_tokens : self.computed_tokens + count]


class Embedder:
    """Queue and context of embedding requests. Only ``add`` and ``check`` may be called from other threads.

    The context is made when the first input arrives.
    """

    def __init__(
        self,
        model: LlamaModel,
        options: EmbeddingOptions,
        make_context: Callable[[], LlamaContext],
        *,
        length: int,
        adapters: Mapping[str, LoraAdapter],
    ) -> None:
        self._adapters = adapters
        self._adapter: str | None = None
        self._model = model
        self._options = options
        self._make_context = make_context
        self._context: LlamaContext | None = None
        self._length = length
        self._jobs: deque[EmbeddingJob] = deque()
        self._active_inputs: list[_ActiveInput] = []
        self._free_sequences = list(range(MAX_EMBEDDING_INPUTS))
        self._prefill_budget = PrefillBudget(DEFAULT_BATCH_SIZE)

    @property
    def busy(self) -> bool:
        return bool(self._jobs or self._active_inputs)

    @property
    def embedding_only(self) -> bool:
        """Whether the model does not generate."""
        return self._options.embedding_only

    @property
    def buffer_sizes(self) -> dict[str, int]:
        """Bytes of the context that was made for embeddings alone, by kind of memory."""
        return self._context.buffer_sizes if self._context is not None and not self._options.embedding_only else {}

    def check(self, inputs: Sequence[Sequence[int]]) -> None:
        """Raises InvalidPrompt and PromptTooLong."""
        for tokens in inputs:
            if not tokens:
                raise InvalidPrompt("the input has no tokens")
            if len(tokens) > self._length:
                raise PromptTooLong(TOO_LONG)
            if not self._model.has_tokens(tokens):
                raise InvalidPrompt("the input has a token that is not in the model's vocabulary")

    def add(self, job: EmbeddingJob) -> None:
        self._jobs.append(job)

    def step(self, *, streaming: bool) -> None:
        """Decode one batch; an error is reported to the requests in it and to no others."""
        if not self.busy:
            return
        try:
            if self._context is None:
                self._context = self._make_context()
            self._run(self._context, streaming=streaming)
        except EngineError as error:
            log.warning("embedding failed: %s", error)
            self._fail_active(error)
        except Exception as error:  # it must not reach the generations
            log.exception("a step of the embeddings failed")
            self._fail_active(EngineFailed(f"the engine failed: {error}"))

    def fail_all(self, error: EngineError) -> None:
        """End every request with the error."""
        self._fail_active(error)
        for job in self._jobs:
            job.resolve(error)
        self._jobs.clear()

    def close(self) -> None:
        if self._context is not None:
            self._context.close()

    def _run(self, context: LlamaContext, *, streaming: bool) -> None:
        self._release_cancelled(context)
        room = DEFAULT_BATCH_SIZE
        if self._options.chunked:
            room = self._prefill_budget.tokens_per_step(streaming=streaming)
        shares = self._allocate_tokens(min(context.batch_capacity, room))
        if not shares:
            return
        context.clear_batch()
        for active, count in shares:
            context.add_tokens(active.sequence, active.computed_tokens, active.next_tokens(count), outputs=count)
        self._set_adapter(context, shares[0][0].job.adapter)
        start = time.perf_counter()
        if status := context.decode():
            raise EngineFailed(f"llama.cpp could not decode the batch (status {status})")
        self._prefill_budget.record_step(sum(count for _, count in shares), time.perf_counter() - start)
        for active, count in shares:
            active.computed_tokens += count
            if active.remaining_tokens == 0:
                self._finish(active, context)

    def _set_adapter(self, context: LlamaContext, adapter: str) -> None:
        if adapter != self._adapter:
            context.set_adapter(self._adapters.get(adapter))
            self._adapter = adapter

    def _allocate_tokens(self, room: int) -> list[tuple[_ActiveInput, int]]:
        """Return the inputs of this batch and their tokens: started inputs, then one new input of each job in turn."""
        shares = []
        for active in self._active_inputs:
            if room > 0:
                shares.append((active, min(active.remaining_tokens, room)))
                room -= shares[-1][1]
        while self._jobs and self._free_sequences and room > 0:
            job = self._jobs.popleft()
            if job.cancelled:
                continue
            size = len(job.inputs[job.started_inputs])
            too_large = size > room and not self._options.chunked
            if shares and (too_large or job.adapter != shares[0][0].job.adapter):
                self._jobs.appendleft(job)
                break
            active = _ActiveInput(job, job.started_inputs, self._free_sequences.pop())
            self._active_inputs.append(active)
            shares.append((active, min(size, room) if self._options.chunked else size))
            room -= shares[-1][1]
            job.started_inputs += 1
            if job.started_inputs < len(job.inputs):
                self._jobs.append(job)
        return shares

    def _finish(self, active: _ActiveInput, context: LlamaContext) -> None:
        job, vector = active.job, context.sequence_embedding(active.sequence)
        self._release(active, context)
        if not math.isfinite(sum(vector)):
            job.cancelled = True
            job.resolve(EngineFailed("the embedding has a value that is not a number"))
            return
        job.vectors[active.index] = vector if context.pooling == POOLING_RANK else normalize(vector)
        if len(job.vectors) == len(job.inputs):
            job.resolve()

    def _release_cancelled(self, context: LlamaContext) -> None:
        for active in [active for active in self._active_inputs if active.job.cancelled]:
            self._release(active, context)

    def _release(self, active: _ActiveInput, context: LlamaContext) -> None:
        context.remove_cells(active.sequence)
        self._active_inputs.remove(active)
        self._free_sequences.append(active.sequence)

    def _fail_active(self, error: EngineError) -> None:
        """End the requests with an input in the memory, or all when there is none, and clear the memory."""
        failed = {active.job for active in self._active_inputs} or set(self._jobs)
        for job in failed:
            job.cancelled = True
            job.resolve(error)
        self._jobs = deque(job for job in self._jobs if not job.cancelled)
        self._active_inputs.clear()
        self._free_sequences = list(range(MAX_EMBEDDING_INPUTS))
        if self._context is not None:
            self._context.clear()


def normalize(vector: Vector) -> Vector:
    """Scale to length 1; a vector of zeros stays as it is."""
    norm = math.sqrt(sum(map(mul, vector, vector)))
    return array("f", [value / norm for value in vector]) if norm > 0 else vector
