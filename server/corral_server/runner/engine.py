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
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from corral_server.runner.batching import Stepper
from corral_server.runner.generation import EngineFailed, Finish, InvalidPrompt, LoadFailed, Piece, PromptTooLong, Task
from corral_server.runner.llama import ContextOptions, LlamaContext, LlamaModel, initialize
from corral_server.runner.sampling import Chooser, chooser
from corral_server.runner.sequence import Generation, Slot, choose_slot
from corral_server.runner.stream import Stream, deliver
from corral_server.runner.text import TextAssembler
from corral_server.runner.threads import available_cores
from corral_server.runner.window import TOO_LONG, cut_prompt, kept

if TYPE_CHECKING:
    from corral_server.runner.logprobs import ScoredText

log = logging.getLogger("corral.runner.engine")

DEFAULT_CONTEXT = 4096
AUTO_SLOTS = (4, 1)
_CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a runner may set; 0 means automatic. ``context_length`` is for one slot and is held to the model's own.

    ``unified`` puts the cells of all slots into one buffer. Without it a slot's attention does not pass over the cells
    of others: measured on a CPU with 2000 tokens in each of four slots, prompts were read a fifth faster and a single
    stream was a quarter faster.
    """

    context_length: int = 0
    slots: int = 0
    threads: int = 0
    batch: int = 512
    gpu_layers: int = -1
    cache_type: str = "f16"
    flash_attention: bool | None = None
    unified: bool = False


class LlamaEngine:
    """The real ``Engine``."""

    def __init__(self, model: LlamaModel, context: LlamaContext, *, context_length: int, slots: int) -> None:
        self._model = model
        self._context = context
        self._length = context_length
        self._slots = [Slot(sequence) for sequence in range(slots)]
        self._stepper = Stepper(model, context, self._slots, length=context_length)
        self._queue: deque[Generation] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._uses = 0
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @classmethod
    def load(
        cls, path: Path, options: EngineOptions = EngineOptions(), *, progress: Callable[[float], bool] | None = None
    ) -> LlamaEngine:
        """Reads the weights; blocks, for seconds or minutes. ``progress`` gets 0 to 1, False aborts.

        Raises LoadFailed, whose text names the file.
        """
        log.info("cpu kernels: %s", initialize())
        model = LlamaModel(path, gpu_layers=options.gpu_layers, progress=progress)
        try:
            length = _context_length(options.context_length, model.train_context)
            context, slots = _context(model, options, length)
        except LoadFailed as error:
            model.close()
            raise LoadFailed(f"{path} cannot be loaded: {error}") from None
        return cls(model, context, context_length=length, slots=slots)

    @property
    def context_length(self) -> int:
        return self._length

    @property
    def slots(self) -> int:
        return len(self._slots)

    @property
    def size_bytes(self) -> int:
        """Weights, KV cache, compute and output buffers, as llama.cpp reported when it made them."""
        return sum(self._model.buffers.values()) + sum(self._context.buffers.values()) or self._model.weights_bytes

    @property
    def vram_bytes(self) -> int:
        buffers = (*self._model.buffers.items(), *self._context.buffers.items())
        return sum(size for kind, size in buffers if not kind.startswith("CPU") and "Host" not in kind)

    @property
    def running(self) -> int:
        """Generations that have a slot."""
        return sum(slot.generation is not None for slot in self._slots)

    @property
    def waiting(self) -> int:
        """Tasks that wait for a slot."""
        return len(self._queue)

    @property
    def stalled_for(self) -> float:
        """Seconds since the thread last made progress; 0 while it has nothing to do, infinite when it has ended."""
        if not self._thread.is_alive():
            return float("inf")
        return time.monotonic() - self._progress if self.running or self._queue else 0.0

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
        choose = self._chooser(task) if task.grammar is None else await self._chooser_beside(task)
        stream = Stream(asyncio.get_running_loop())
        limit = 10 * self._length if task.max_tokens < 0 else min(task.max_tokens, 10 * self._length)
        self._submit(Generation(task, stream, choose, prompt=prompt, keep=keep, limit=limit, text=text, scored=scored))
        try:
            async with aclosing(stream.read()) as items:
                async for item in items:
                    yield item
        finally:
            stream.closed = True

    def close(self) -> None:
        """Ends the thread within one step, fails what runs or waits, and frees all memory."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._context.close()
        self._model.close()

    def _chooser(self, task: Task) -> Chooser:
        return chooser(self._model, task, context_length=self._length)

    async def _chooser_beside(self, task: Task) -> Chooser:
        """In a thread, because a grammar may take long to compile; freed when nobody waits for it any more."""
        building = asyncio.ensure_future(asyncio.to_thread(self._chooser, task))
        try:
            return await asyncio.shield(building)
        except asyncio.CancelledError:
            building.add_done_callback(_close_unused)
            raise

    def _fit(self, task: Task) -> tuple[tuple[int, ...], int]:
        """The prompt that is decoded, and how many of its tokens a shift keeps."""
        if not task.prompt:
            raise InvalidPrompt("the prompt has no tokens")
        if not self._model.knows(task.prompt):
            raise InvalidPrompt("the prompt has a token that is not in the model's vocabulary")
        has_bos = self._model.adds_bos and task.prompt[0] == self._model.bos
        keep = kept(task.keep + has_bos if task.keep >= 0 else -1, len(task.prompt), context=self._length)
        if len(task.prompt) < self._length:
            return task.prompt, keep
        if not task.shift:
            raise PromptTooLong(TOO_LONG)
        return cut_prompt(task.prompt, keep, context=self._length), keep

    def _submit(self, generation: Generation) -> None:
        with self._changed:
            if self._closing:
                generation.chooser.close()
                raise EngineFailed("the model is being unloaded")
            if not self.running and not self._queue:
                self._progress = time.monotonic()
            self._queue.append(generation)
            self._changed.notify()

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self._admit()
                deliver(self._stepper.step())
            except Exception as error:  # the thread must outlive whatever a step does
                log.exception("a step of the engine failed")
                self._fail_all(EngineFailed(f"the engine failed: {error}"))
            self._progress = time.monotonic()
        self._fail_all(EngineFailed("the model is being unloaded"))

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._queue or self.running or self._closing):
                self._changed.wait()
            return not self._closing

    def _admit(self) -> None:
        """Gives free slots to the oldest tasks; those whose reader has left are passed over."""
        while (idle := [slot for slot in self._slots if slot.generation is None]) and self._queue:
            generation = self._queue.popleft()
            if generation.stream.closed:
                generation.chooser.close()
            elif generation.limit == 0:
                deliver([(generation.stream, generation.finish("length"))])
                generation.chooser.close()
            else:
                self._start(generation, idle)

    def _start(self, generation: Generation, idle: Sequence[Slot]) -> None:
        running = {slot.sequence for slot in self._slots if slot.generation is not None}
        slot, shared = choose_slot(idle, generation.prompt, running=running)
        shared = min(shared, len(generation.prompt) - 1)  # the last token is decoded again: its logits are needed
        if not self._context.remove(slot.sequence, shared):
            self._context.remove(slot.sequence)
            shared = 0
        del slot.cells[shared:]
        self._uses += 1
        slot.used = self._uses
        slot.generation = generation
        generation.start(shared)

    def _fail_all(self, error: EngineFailed) -> None:
        """Ends everything that runs, and what waits when the engine closes; the memory starts afresh."""
        failed = [slot.generation for slot in self._slots if slot.generation is not None]
        for slot in self._slots:
            self._stepper.end(slot)
            slot.cells.clear()
        self._context.clear()
        if self._closing:
            while self._queue:
                generation = self._queue.popleft()
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


def _context_length(wanted: int, trained: int) -> int:
    """Ollama's rule: what is asked for or 4096, never more than the model was trained for, never less than 4."""
    return max(4, min(wanted or DEFAULT_CONTEXT, trained or wanted or DEFAULT_CONTEXT))


def _context(model: LlamaModel, options: EngineOptions, length: int) -> tuple[LlamaContext, int]:
    """``parallel: auto`` tries four slots and then one. Raises LoadFailed."""
    if options.cache_type not in _CACHE_TYPES:
        raise LoadFailed(f"KV cache type {options.cache_type!r} is not one of {', '.join(_CACHE_TYPES)}")
    attention = -1 if options.flash_attention is None else int(options.flash_attention)
    choices = (options.slots,) if options.slots else AUTO_SLOTS
    for slots in choices:
        wanted = ContextOptions(
            length=length,
            sequences=slots,
            batch=min(options.batch, length * slots),
            threads=options.threads or available_cores(),
            unified=options.unified,
            flash_attention=attention,
            cache_type=_CACHE_TYPES[options.cache_type],
        )
        try:
            return model.context(wanted), slots
        except LoadFailed as error:
            if slots == choices[-1]:
                raise
            log.warning("%d slots do not fit (%s); trying fewer", slots, error)
    raise AssertionError("there is always a last choice")
