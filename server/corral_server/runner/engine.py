"""The engine: one loaded model, one thread that owns llama.cpp's context, a FIFO queue of tasks in front of its slots.

What always holds: only the thread touches the context; it sleeps on a condition when nothing runs; whatever happens in
a step, it goes on with the next; every task that was taken gets a Finish or an error, unless its reader has left.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from corral_server.runner.admission import Admission
from corral_server.runner.batching import Stepper
from corral_server.runner.contexts import DEFAULTS, context_length, embedding_context, make_context
from corral_server.runner.contexts import EngineOptions as EngineOptions
from corral_server.runner.embedding import Embedder, EmbeddingOptions, Job, Vector
from corral_server.runner.generation import EngineFailed, Finish, InvalidPrompt, LoadFailed, Piece, PromptTooLong, Task
from corral_server.runner.llama import Adapter, LlamaContext, LlamaModel
from corral_server.runner.llama_library import initialize
from corral_server.runner.measures import EngineMeasures
from corral_server.runner.memory import SlotMemory
from corral_server.runner.sampling import Chooser, chooser, takes_long
from corral_server.runner.sequence import Generation, Slot
from corral_server.runner.stream import Outbox, Stream, deliver
from corral_server.runner.text import TextAssembler
from corral_server.runner.window import TOO_LONG, cut_prompt, kept

if TYPE_CHECKING:
    from corral_server.runner.logprobs import ScoredText

log = logging.getLogger("corral.runner.engine")


class LlamaEngine:
    """The real ``Engine``."""

    def __init__(
        self,
        model: LlamaModel,
        context: LlamaContext,
        *,
        length: int,
        slots: int,
        draft: int,
        embedder: Embedder,
        adapters: Mapping[str, Adapter],
    ) -> None:
        self._adapters = adapters
        self._model = model
        self._context = context
        self._embedder = embedder
        self._length = length
        self._slots = [Slot(sequence) for sequence in range(slots)]
        self._memory = SlotMemory(context, self._slots, length=length, rewinds=model.rewinds)
        self._admission = Admission(self._slots, self._memory)
        self._out = Outbox()
        memory, out = self._memory, self._out
        self._stepper = Stepper(model, context, memory, slots=self._slots, draft=draft, adapters=adapters, out=out)
        self._queue: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls, path: Path, options: EngineOptions = DEFAULTS, *, progress: Callable[[float], bool] | None = None
    ) -> LlamaEngine:
        """Reads the weights; blocks, for seconds or minutes. ``progress`` gets 0 to 1, False aborts.

        Raises LoadFailed, whose text names the file.
        """
        log.info("cpu kernels: %s", initialize())
        model = LlamaModel(path, gpu_layers=options.gpu_layers, lock=options.lock, progress=progress)
        try:
            adapters = {name: model.adapter(file.path, file.scale) for name, file in options.adapters.items()}
            length = context_length(options.context_length, model.train_context)
            context, slots = make_context(model, options, length)
        except LoadFailed as error:
            model.close()
            raise LoadFailed(f"{path} cannot be loaded: {error}") from None
        draft = options.draft if model.rewinds else 0
        if draft < options.draft:
            log.warning("this model cannot forget tokens, so none are decoded on speculation")
        embedding = options.embedding or EmbeddingOptions()
        if options.warm_up and not embedding.only and not context.warm_up(max(model.bos, 0)):
            log.warning("warming up failed")
        embedder = Embedder(
            model,
            embedding,
            lambda: context if embedding.only else model.context(embedding_context(options, length)),
            length=length,
            adapters=adapters,
        )
        return cls(model, context, length=length, slots=slots, draft=draft, embedder=embedder, adapters=adapters)

    @property
    def context_length(self) -> int:
        return self._length

    @property
    def slots(self) -> int:
        return len(self._slots)

    @property
    def size_bytes(self) -> int:
        """Weights, KV cache, compute and output buffers, as llama.cpp reported when it made them."""
        return sum(size for _, size in self._buffers()) or self._model.weights_bytes

    @property
    def vram_bytes(self) -> int:
        return sum(size for kind, size in self._buffers() if not kind.startswith("CPU") and "Host" not in kind)

    @property
    def running(self) -> int:
        """Generations that have a slot."""
        return sum(slot.generation is not None for slot in self._slots)

    @property
    def cells_in_use(self) -> int:
        """Cells of the KV cache that llama.cpp holds for the slots, what idle ones keep for later included.

        Only for an engine that does nothing.
        """
        return self._memory.cells_in_use

    @property
    def cells_held(self) -> int:
        """The same as the slots count it, whatever the engine does: cells that two of them share count for both."""
        return sum(len(slot.cells) for slot in self._slots)

    @property
    def measures(self) -> EngineMeasures:
        return self._stepper.measures

    @property
    def waiting(self) -> int:
        """Tasks that wait for a slot."""
        return len(self._queue)

    @property
    def stalled_for(self) -> float:
        """Seconds since the thread last made progress; 0 while it has nothing to do, infinite when it has ended."""
        if not self._thread.is_alive():
            return float("inf")
        return time.monotonic() - self._progress if self._has_work() else 0.0

    @property
    def bos_text(self) -> str:
        return self._model.text_of(self._model.bos)

    @property
    def eos_text(self) -> str:
        return self._model.text_of(self._model.eos)

    @property
    def adds_bos(self) -> bool:
        """Whether tokenizing with ``add_special`` puts the BOS token in front."""
        return self._model.adds_bos

    @property
    def chat_template(self) -> str | None:
        return self._model.chat_template()

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return self._model.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Raises ValueError for a token that is not in the vocabulary."""
        return self._model.detokenize(tokens)

    async def generate(self, task: Task) -> AsyncGenerator[Piece | Finish, None]:
        """See ``Engine.generate``. Close the iterator (``contextlib.aclosing``) to cancel."""
        prompt, keep = self._fit(task)
        text = TextAssembler(task.stop)
        scored = await asyncio.to_thread(_scored, self._model, task, text=text) if task.logprobs else None
        choose = await self._chooser_beside(task) if takes_long(task, self._model.vocab_size) else self._chooser(task)
        stream = Stream(asyncio.get_running_loop())
        limit = 10 * self._length if task.max_tokens < 0 else min(task.max_tokens, 10 * self._length)
        made = Generation(task, stream, choose, prompt=prompt, keep=keep, limit=limit, text=text, scored=scored)
        self._submit(made)
        try:
            async with aclosing(stream.read()) as items:
                async for item in items:
                    yield item
        finally:
            stream.closed = True
            self._withdraw(made)

    async def embed(self, inputs: Sequence[Sequence[int]], adapter: str = "") -> list[Vector]:
        """See ``Engine.embed``."""
        self._check_adapter(adapter)
        self._embedder.check(inputs)
        job = Job(inputs, asyncio.get_running_loop().create_future(), adapter)
        with self._changed:
            self._begin_work()
            self._embedder.add(job)
        try:
            return await job.future
        finally:
            job.closed = True

    def close(self) -> None:
        """Ends the thread within one step, fails what runs or waits, and frees all memory."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._context.close()
        self._embedder.close()
        self._model.close()

    def _buffers(self) -> Iterator[tuple[str, int]]:
        for part in (self._model, self._context, self._embedder):
            yield from part.buffers.items()

    def _chooser(self, task: Task) -> Chooser:
        return chooser(self._model, task, context_length=self._length)

    async def _chooser_beside(self, task: Task) -> Chooser:
        """In a thread, because it may take long; freed when nobody waits for it any more."""
        building = asyncio.ensure_future(asyncio.to_thread(self._chooser, task))
        try:
            return await asyncio.shield(building)
        except asyncio.CancelledError:
            building.add_done_callback(_close_unused)
            raise

    def _fit(self, task: Task) -> tuple[tuple[int, ...], int]:
        """The prompt that is decoded, and how many of its tokens a shift keeps."""
        if self._embedder.only:
            raise EngineFailed("the model makes embeddings only")
        self._check_adapter(task.adapter)
        if not task.prompt:
            raise InvalidPrompt("the prompt has no tokens")
        has_bos = self._model.adds_bos and task.prompt[0] == self._model.bos
        keep = kept(task.keep + has_bos if task.keep >= 0 else -1, len(task.prompt), context=self._length)
        prompt = task.prompt
        if len(prompt) >= self._length:
            if not task.shift:
                raise PromptTooLong(TOO_LONG)
            prompt = cut_prompt(prompt, keep, context=self._length)
        if not self._model.knows(prompt):  # asked of what is left only: a prompt may have millions of tokens
            raise InvalidPrompt("the prompt has a token that is not in the model's vocabulary")
        return prompt, keep

    def _check_adapter(self, name: str) -> None:
        if name and name not in self._adapters:
            raise EngineFailed(f"there is no adapter {name!r}")

    def _submit(self, generation: Generation) -> None:
        with self._changed:
            try:
                self._begin_work()
            except EngineFailed:
                generation.chooser.close()
                raise
            self._queue.append(generation)

    def _withdraw(self, generation: Generation) -> None:
        """Keeps nothing of one that waits, though the next slot may be free only much later."""
        if not generation.began:
            with self._changed, suppress(ValueError):
                self._queue.remove(generation)
                generation.chooser.close()

    def _begin_work(self) -> None:
        """Wakes the thread, which waits until the lock is free. Raises EngineFailed while the engine closes."""
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
                self._admit()
                self._out.take(self._stepper.step(), more=bool(self.running) and not self._embedder.busy)
                self._embedder.step(streaming=bool(self.running))
            except Exception as error:  # the thread must outlive whatever a step does
                log.exception("a step of the engine failed")
                self._fail_all(EngineFailed(f"the engine failed: {error}"))
            self._progress = time.monotonic()
        self._fail_all(EngineFailed("the model is being unloaded"))

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._has_work() or self._closing):
                self._changed.wait()
            return not self._closing

    def _admit(self) -> None:
        """Gives free slots to the oldest tasks."""
        while self._admission.idle() and (oldest := self._next()) is not None:
            self._admission.admit(oldest)

    def _next(self) -> Generation | None:
        """Takes the oldest task from the queue."""
        with self._changed:
            return self._queue.popleft() if self._queue else None

    def _fail_all(self, error: EngineFailed) -> None:
        """Ends everything that runs, and what waits when the engine closes; the memory starts afresh."""
        self._out.send()
        failed = [slot.generation for slot in self._slots if slot.generation is not None]
        for slot in self._slots:
            self._stepper.end(slot)
        self._memory.clear()
        self._embedder.fail(error)
        if self._closing:
            while (generation := self._next()) is not None:
                generation.chooser.close()
                failed.append(generation)
        deliver([(generation.stream, error) for generation in failed])


def _scored(model: LlamaModel, task: Task, *, text: TextAssembler) -> ScoredText:
    """Imported only here, and not in the event loop: most runners are never asked for logprobs."""
    from corral_server.runner.logprobs import ScoredText, Scorer

    return ScoredText(text, Scorer(partial(model.piece, special=True), task.top_logprobs))


def _close_unused(building: asyncio.Future[Chooser]) -> None:
    if not building.cancelled() and building.exception() is None:
        building.result().close()
