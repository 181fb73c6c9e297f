"""The engine: one loaded model, one thread that owns llama.cpp's context, a FIFO queue of tasks in front of its slots.

Invariants:

- only the engine's thread touches the context; it sleeps on a condition while there is no work;
- an error in a step does not end the thread;
- every accepted task gets a result or an error, unless its reader left.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from corral_core.contracts.runner_status import Offload
from corral_server.runner.engine.admission import Admission
from corral_server.runner.engine.batch_scheduler import BatchScheduler
from corral_server.runner.engine.cache.context_shift import TOO_LONG, tokens_to_keep, truncate_prompt
from corral_server.runner.engine.cache.kv_cache import KVCache
from corral_server.runner.engine.contexts import EngineOptions, make_embedding_context
from corral_server.runner.engine.embedding import Embedder, EmbeddingJob, EmbeddingOptions, Vector
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.engine.loading.parts import EngineParts, load_parts
from corral_server.runner.engine.loading.phases import LoadPhases
from corral_server.runner.engine.metrics import EngineMetrics
from corral_server.runner.engine.prepared_image import PreparedImage, PromptImages, images_of_prompt, text_tokens
from corral_server.runner.engine.request_samplers import sampler_of, scored_text_of
from corral_server.runner.engine.slots import Generation, Slot
from corral_server.runner.engine.stream import DeliveryBuffer, GenerationStream, StreamItems, deliver
from corral_server.runner.engine.vision.encoder import ImageEncoder
from corral_server.runner.llama.errors import EngineFailed, InvalidPrompt, PromptTooLong
from corral_server.runner.llama.vocabulary import SpecialTokens
from corral_server.runner.memory.budget import current_reservation
from corral_server.runner.sampling.grammar_compiler import GrammarCompiler
from corral_server.runner.sampling.text import TextAssembler, TextChunk

if TYPE_CHECKING:
    pass  # imports numpy

log = logging.getLogger("corral.runner.engine")

_MAX_CONTEXTS = 10
"""Limit of a generation without one, in context lengths, as Ollama's for ``num_predict`` -1."""

_IMAGE_WAIT = 0.05
"""Seconds between the steps while all generations wait for images: cancelled ones leave, time limits apply."""


class LlamaEngine:
    """The ``Engine`` of llama.cpp."""

    def __init__(self, parts: EngineParts, *, draft_tokens: int, embedder: Embedder) -> None:
        model, context, length = parts.model, parts.context, parts.length
        self._adapters = parts.adapters
        self._model = model
        self._context = context
        self._parts = parts
        self._embedder = embedder
        self._grammars = GrammarCompiler(model.vocabulary)
        self._length = length
        self._slots = [Slot(sequence) for sequence in range(parts.slots)]
        self._cache = KVCache(context, self._slots, length=length, can_truncate=model.can_truncate)
        self._admission = Admission(self._slots, self._cache)
        self._buffer = DeliveryBuffer()
        self._changed = threading.Condition()
        self._images = ImageEncoder.of(parts, self._changed)
        self._images_seen = 0
        """Images that had been encoded at the beginning of the last step."""
        self._scheduler = BatchScheduler(
            model,
            context,
            cache=self._cache,
            slots=self._slots,
            draft_tokens=draft_tokens,
            adapters=parts.adapters,
            buffer=self._buffer,
            encoder=self._images,
        )
        self._queue: deque[Generation] = deque()
        self._closing = False
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls,
        path: Path,
        options: EngineOptions | None = None,
        *,
        progress: Callable[[float], bool] | None = None,
        phases: LoadPhases | None = None,
    ) -> LlamaEngine:
        """Load the weights; blocks for seconds or minutes. ``progress`` gets 0 to 1 and aborts by returning False.

        ``phases`` gets the duration of each phase. Raises LoadFailed, whose text names the file.
        """
        options = options or EngineOptions()
        parts = load_parts(path, options, progress=progress, phases=phases or LoadPhases())
        model, context, length = parts.model, parts.context, parts.length
        draft_tokens = options.draft_tokens if model.can_truncate else 0
        if draft_tokens < options.draft_tokens:
            log.warning("speculative decoding is off: the model's memory cannot remove rejected tokens")
        embedding = options.embedding or EmbeddingOptions()
        embedder = Embedder(
            model,
            embedding,
            lambda: context if embedding.embedding_only else make_embedding_context(model, options, length),
            length=length,
            adapters=parts.adapters,
        )
        return cls(parts, draft_tokens=draft_tokens, embedder=embedder)

    @property
    def context_length(self) -> int:
        return self._length

    @property
    def slots(self) -> int:
        return len(self._slots)

    @property
    def size_bytes(self) -> int:
        """Weights, KV cache, compute and output buffers, as llama.cpp reported when it allocated them."""
        return sum(size for _, size in self._buffers()) or self._model.weights_bytes

    @property
    def vram_bytes(self) -> int:
        """The same on GPUs alone. ``CPU*``, ``AMX`` (weights repacked for the CPU) and ``*Host`` are main memory."""
        return sum(size for kind, size in self._buffers() if not kind.startswith(("CPU", "AMX")) and "Host" not in kind)

    @property
    def offload(self) -> Offload:
        """See ``Engine.offload``."""
        return self._parts.offload(self._buffers())

    @property
    def running(self) -> int:
        return sum(slot.generation is not None for slot in self._slots)

    @property
    def kv_cells_used(self) -> int:
        """Cells by the slots' own count; cells that two slots share count for both."""
        return sum(len(slot.tokens) for slot in self._slots)

    @property
    def metrics(self) -> EngineMetrics:
        return self._scheduler.metrics

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def stalled_for(self) -> float:
        if not self._thread.is_alive():
            return float("inf")
        return time.monotonic() - self._progress if self._has_work() else 0.0

    @property
    def bos_text(self) -> str:
        return self._model.token_text(self._model.bos)

    @property
    def eos_text(self) -> str:
        return self._model.token_text(self._model.eos)

    @property
    def adds_bos(self) -> bool:
        return self._model.adds_bos

    @property
    def chat_template(self) -> str | None:
        return self._model.chat_template()

    @property
    def special_tokens(self) -> SpecialTokens:
        return self._model.special_tokens()

    @property
    def rerank_template(self) -> str:
        return self._model.chat_template("rerank") or ""

    def token_bytes(self, token: int) -> bytes:
        if not self._model.has_tokens((token,)):
            raise ValueError("the token is not in the model's vocabulary")
        return self._model.token_bytes(token, special=True)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return self._model.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self._model.detokenize(tokens)

    @property
    def accepts_images(self) -> bool:
        return self._images.accepts_images

    def prepare_image(self, data: bytes, sha256: str) -> PreparedImage:
        """See ``Engine.prepare_image``."""
        return self._images.prepare(data, sha256)

    async def generate(self, task: GenerationTask) -> AsyncGenerator[TextChunk | GenerationResult, None]:
        """See ``Engine.generate``."""
        length = min(task.context_length or self._length, self._length)
        prompt, keep, images = self._prepare_prompt(task, length)
        text = TextAssembler(task.stop)
        scored = await scored_text_of(task, self._model, text=text) if task.logprobs else None
        sampler = await sampler_of(task, self._model, context_length=length, grammars=self._grammars)
        stream = GenerationStream(asyncio.get_running_loop(), current_reservation())
        most = _MAX_CONTEXTS * length
        max_tokens = most if task.max_tokens < 0 else min(task.max_tokens, most)
        generation = Generation(
            task,
            stream,
            sampler,
            prompt=prompt,
            keep=keep,
            max_tokens=max_tokens,
            context_length=length,
            text=text,
            scored_text=scored,
        )
        generation.images = images
        self._submit(generation)
        try:
            async with aclosing(stream.read()) as items:
                async for item in items:
                    yield item
        finally:
            stream.closed = True
            self._withdraw(generation)

    async def embed(self, inputs: Sequence[Sequence[int]], adapter: str = "") -> list[Vector]:
        """See ``Engine.embed``."""
        self._check_adapter(adapter)
        self._embedder.check(inputs)
        job = EmbeddingJob(inputs, asyncio.get_running_loop().create_future(), adapter)
        with self._changed:
            self._wake_thread()
            self._embedder.add(job)
        try:
            return await job.future
        finally:
            job.cancelled = True

    def close(self) -> None:
        """See ``Engine.close``."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._images.close()
        self._context.close()
        self._embedder.close()
        self._model.close()

    def _buffers(self) -> Iterator[tuple[str, int]]:
        for part in (self._model, self._context, self._embedder, self._images):
            yield from part.buffer_sizes.items()

    def _prepare_prompt(self, task: GenerationTask, length: int) -> tuple[tuple[int, ...], int, PromptImages | None]:
        """Return the prompt that is decoded in a context of ``length``, how many tokens a context shift keeps, images.

        Raises EngineFailed, InvalidPrompt and PromptTooLong.
        """
        if self._embedder.embedding_only:
            raise EngineFailed("the model makes embeddings only")
        self._check_adapter(task.adapter)
        if not task.prompt:
            raise InvalidPrompt("the prompt has no tokens")
        has_bos = self._model.adds_bos and task.prompt[0] == self._model.bos
        keep = tokens_to_keep(task.keep + has_bos if task.keep >= 0 else -1, len(task.prompt), context=length)
        prompt, images = task.prompt, images_of_prompt(task.prompt, task.images) if task.images else None
        if len(prompt) + (images.extra_cells if images is not None else 0) >= length:
            if not task.context_shift or images is not None:
                raise PromptTooLong(TOO_LONG)
            prompt = truncate_prompt(prompt, keep, context=length)
        text = prompt if images is None else text_tokens(prompt)
        if not self._model.has_tokens(text):  # after truncation: a prompt may have millions of tokens
            raise InvalidPrompt("the prompt has a token that is not in the model's vocabulary")
        return prompt, keep, images

    def _check_adapter(self, name: str) -> None:
        if name and name not in self._adapters:
            raise EngineFailed(f"there is no adapter {name!r}")

    def _submit(self, generation: Generation) -> None:
        with self._changed:
            try:
                self._wake_thread()
            except EngineFailed:
                generation.sampler.close()
                raise
            self._queue.append(generation)

    def _withdraw(self, generation: Generation) -> None:
        """Remove a generation that still waits: the next slot may be free only much later."""
        if not generation.started_ns:
            with self._changed, suppress(ValueError):
                self._queue.remove(generation)
                generation.sampler.close()

    def _wake_thread(self) -> None:
        """Notify the thread, which continues when the lock is released. Raises EngineFailed while the engine closes."""
        if self._closing:
            raise EngineFailed("the model is being unloaded")
        if not self._has_work():
            self._progress = time.monotonic()
        self._changed.notify()

    def _has_work(self) -> bool:
        return bool(self._queue or self.running or self._embedder.busy)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._step()
            except Exception as error:  # no error of a step may end the thread
                log.exception("a step of the engine failed")
                self._fail_all(EngineFailed(f"the engine failed: {error}"))
            self._progress = time.monotonic()
        self._fail_all(EngineFailed("the model is being unloaded"))

    def _step(self) -> None:
        items: StreamItems = []
        self._images_seen = self._images.finished
        try:
            self._admit(items)
            self._scheduler.step(items)
        finally:  # the results of generations that left their slots, also when a later one raises
            self._buffer.add(items, more=bool(self.running) and not self._embedder.busy)
        self._embedder.step(streaming=bool(self.running))

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._has_work() or self._closing):
                self._changed.wait()
            if self._waits_for_image():
                self._changed.wait(_IMAGE_WAIT)
            return not self._closing

    def _waits_for_image(self) -> bool:
        """Whether a step could do nothing until an image has been encoded."""
        if self._scheduler.decoded or not self.running or self._embedder.busy:
            return False
        can_admit = bool(self._queue) and self._admission.has_idle_slot
        return not (can_admit or self._closing or self._images.finished != self._images_seen)

    def _admit(self, items: StreamItems) -> None:
        """Give idle slots to the oldest tasks."""
        while self._admission.has_idle_slot and (oldest := self._pop_oldest()) is not None:
            try:
                self._admission.admit(oldest)
            except Exception as error:
                log.exception("a generation could not be admitted")
                self._fail_admission(oldest, EngineFailed(f"the engine failed: {error}"), items)

    def _fail_admission(self, generation: Generation, error: EngineFailed, items: StreamItems) -> None:
        """End a generation that was taken from the queue, whether it has a slot or not."""
        for slot in self._slots:
            if slot.generation is generation:
                self._scheduler.fail(slot, error, items)
                return
        items.append((generation.stream, error))
        generation.sampler.close()

    def _pop_oldest(self) -> Generation | None:
        with self._changed:
            return self._queue.popleft() if self._queue else None

    def _fail_all(self, error: EngineFailed) -> None:
        """End all running generations, and the waiting ones when the engine closes; clear the cache."""
        self._buffer.flush()
        failed = [slot.generation for slot in self._slots if slot.generation is not None]
        if self._closing:
            while (generation := self._pop_oldest()) is not None:
                failed.append(generation)
        for slot in self._slots:
            slot.generation = None
        deliver([(generation.stream, error) for generation in failed])
        for generation in failed:
            generation.sampler.close()
        self._embedder.fail_all(error)
        self._cache.clear()
