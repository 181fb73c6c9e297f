"""A fake of llama.cpp under the batch scheduler, for tests that need no model.

Each of its cells records the token, the adapter and every earlier cell that it attended to, so a cell that was computed
in the wrong context differs from the right one. The next token depends on all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import cast

from corral_server.runner.engine.admission import Admission
from corral_server.runner.engine.batch_scheduler import BatchScheduler
from corral_server.runner.engine.cache.kv_cache import KVCache
from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.engine.slots import Generation, Slot
from corral_server.runner.engine.stream import DeliveryBuffer, GenerationStream, StreamItem, StreamItems
from corral_server.runner.llama.context import NO_ROOM, LlamaContext
from corral_server.runner.llama.model import LlamaModel, LoraAdapter
from corral_server.runner.memory.budget import RequestMemory, Reservation
from corral_server.runner.sampling.text import TextAssembler

CONTEXT = 64
SLOTS = 3
BATCH = 16
ADAPTERS = {"x": LoraAdapter("x", 1.0)}
END_OF_TEXT = 0
ABORTED = 2
"""A status of ``llama_decode``."""


@dataclass(frozen=True, slots=True)
class Cell:
    """``context`` is a digest of the token, the adapter and all earlier cells of the sequence."""

    token: int
    adapter: str
    context: int


def compute_cell(token: int, adapter: str, earlier: Sequence[Cell]) -> Cell:
    adapter_number = ("", *ADAPTERS).index(adapter)
    return Cell(token, adapter, hash((token, adapter_number, *(cell.context for cell in earlier))))


@lru_cache(maxsize=4096)
def compute_cells(tokens: tuple[int, ...], adapter: str) -> tuple[Cell, ...]:
    """Return the cells of a sequence that is computed from its beginning with one adapter."""
    if not tokens:
        return ()
    earlier = compute_cells(tokens[:-1], adapter)
    return (*earlier, compute_cell(tokens[-1], adapter, earlier))


class FakeContext:
    """The interface of ``LlamaContext`` that the scheduler uses, with the semantics of llama.cpp's KV cache."""

    def __init__(self, *, can_truncate: bool, batch: int = BATCH) -> None:
        self.batch_capacity = batch
        self.can_shift = can_truncate
        self.next_status = 0
        self.sequences: list[list[Cell]] = [[] for _ in range(SLOTS)]
        self._can_truncate = can_truncate
        self._adapter = ""
        self._batch: list[tuple[int, int, int]] = []
        self._computed: list[Cell] = []

    def set_adapter(self, adapter: LoraAdapter | None) -> None:
        self._adapter = cast(str, adapter.handle) if adapter is not None else ""

    def clear_batch(self) -> None:
        self._batch.clear()

    def add_tokens(self, sequence: int, position: int, tokens: Sequence[int], *, outputs: int) -> int:
        self._batch += [(sequence, position + index, token) for index, token in enumerate(tokens)]
        assert outputs <= len(tokens)
        assert len(self._batch) <= self.batch_capacity
        return len(self._batch) - 1

    def decode(self) -> int:
        """Compute the cells of the batch, unless ``next_status`` is set; an aborted batch leaves those of its half."""
        status, self.next_status = self.next_status, 0
        if status == NO_ROOM:
            return status
        self._computed.clear()
        for sequence, position, token in self._batch[: len(self._batch) // 2] if status else self._batch:
            cells = self.sequences[sequence]
            assert position == len(cells), "the positions of a sequence are consecutive"
            cells.append(compute_cell(token, self._adapter, cells))
            self._computed.append(cells[-1])
        return status

    def remove_cells(self, sequence: int, start: int = 0, end: int = -1) -> bool:
        cells = self.sequences[sequence]
        end = len(cells) if end < 0 else end
        if 0 < start < len(cells) and not self._can_truncate:
            return False
        del cells[start:end]
        return True

    def shift_cells(self, sequence: int, start: int, end: int, *, by: int) -> None:
        assert start < end
        assert len(self.sequences[sequence]) == end + by, "the cells before the moved ones were removed"

    def copy_cells(self, source: int, target: int, end: int) -> bool:
        self.sequences[target] = list(self.sequences[source])
        return self.remove_cells(target, end) or (self.remove_cells(target) and False)

    def clear(self) -> None:
        for cells in self.sequences:
            cells.clear()

    def logits(self, index: int) -> memoryview:
        raise AssertionError("no task has logprobs")

    def next_token(self, index: int) -> int:
        """Return one of three tokens or the end of text; few, so that drafts are proposed and accepted."""
        context = self._computed[index].context
        return END_OF_TEXT if context % 31 == 0 else 1 + context % 3


class FakeSampler:
    """Samples the fake context's next token; raises ``error`` instead when it is set."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.closed = False

    def sample(self, context: LlamaContext, index: int) -> int:
        if self.error is not None:
            raise self.error
        return cast(FakeContext, context).next_token(index)

    def close(self) -> None:
        self.closed = True


def make_generation(task: GenerationTask, sampler: FakeSampler | None = None) -> Generation:
    """Return a queued generation whose stream delivers at once, without an event loop."""
    loop = SimpleNamespace(call_soon_threadsafe=lambda call, items: call(items))
    return Generation(
        task,
        GenerationStream(cast(asyncio.AbstractEventLoop, loop), Reservation(RequestMemory())),
        sampler or FakeSampler(),
        prompt=task.prompt,
        keep=task.keep,
        max_tokens=task.max_tokens,
        context_length=min(task.context_length or CONTEXT, CONTEXT),
        text=TextAssembler(),
    )


class FakeEngine:
    """Queue, scheduler, slots and cache around the fake context, driven step by step."""

    def __init__(self, *, draft_tokens: int = 0, can_truncate: bool = True, batch: int = BATCH) -> None:
        self.context = FakeContext(can_truncate=can_truncate, batch=batch)
        self.slots = [Slot(number) for number in range(SLOTS)]
        self.queue: deque[Generation] = deque()
        self.ended: dict[Generation, StreamItem] = {}
        """The result or the error of each generation."""
        context = cast(LlamaContext, self.context)
        model = SimpleNamespace(is_end_of_generation=lambda token: token == END_OF_TEXT, token_bytes=_no_text)
        cache = KVCache(context, self.slots, length=CONTEXT, can_truncate=can_truncate)
        self._admission = Admission(self.slots, cache)
        self.scheduler = BatchScheduler(
            cast(LlamaModel, model),
            context,
            cache=cache,
            slots=self.slots,
            draft_tokens=draft_tokens,
            adapters=ADAPTERS,
            buffer=DeliveryBuffer(),
        )

    def submit(self, task: GenerationTask, sampler: FakeSampler | None = None) -> Generation:
        self.queue.append(make_generation(task, sampler))
        return self.queue[-1]

    def step(self) -> None:
        while self.queue and self._admission.has_idle_slot:
            self._admission.admit(self.queue.popleft())
        streams = {slot.generation.stream: slot.generation for slot in self.slots if slot.generation is not None}
        items: StreamItems = []
        try:
            self.scheduler.step(items)
        finally:
            for stream, item in items:
                if isinstance(item, GenerationResult | Exception):
                    self.ended[streams[stream]] = item

    @property
    def busy(self) -> bool:
        return bool(self.queue) or any(slot.generation is not None for slot in self.slots)

    def run_until(self, done: Callable[[], bool]) -> None:
        for _ in range(4000):
            if done():
                return
            self.step()
        raise AssertionError("a generation never ends")


def _no_text(_token: int, *, special: bool) -> bytes:
    return b"."


@lru_cache(maxsize=4096)
def tokens_alone(task: GenerationTask, *, can_truncate: bool = True) -> tuple[int, ...]:
    """Return what an engine generates that never did anything else."""
    engine = FakeEngine(can_truncate=can_truncate)
    generation = engine.submit(task)
    engine.run_until(lambda: generation in engine.ended)
    return tuple(generation.generated_tokens)
