"""Turns of LoRA adapters: which adapter's sequences are decoded in this step.

llama.cpp applies its adapters to a whole batch (``llama_set_adapters_lora``).

Invariants:

- a batch has sequences of one adapter only; the sequences without an adapter count as one;
- every adapter with work gets its turn, the one that waited longest first.

A turn is longer than a step, because changing the adapter has a cost (measured on a CPU: 2.5 ms, where a step takes
12 ms).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from corral_server.runner.engine.slots import Slot
from corral_server.runner.llama.context import LlamaContext
from corral_server.runner.llama.model import LoraAdapter

TURN_SECONDS = 0.06
"""After this time another adapter may decode."""


class AdapterTurns:
    """Used by the engine's thread alone.

    The name ``""`` is that of sequences without a named adapter: they get the adapter of that name, if there is one.
    """

    def __init__(self, context: LlamaContext, adapters: Mapping[str, LoraAdapter]) -> None:
        self._context = context
        self._adapters = adapters
        self._current: str | None = None
        self._turn_started: dict[str, float] = {}

    def select(self, running: Sequence[Slot]) -> Sequence[Slot]:
        """Return the running slots for this step's batch and apply their adapter to the context."""
        if not self._adapters or not running:
            return running
        waiting = {slot.adapter for slot in running}
        now = time.monotonic()
        turn_over = now - self._turn_started.get(self._current or "", 0) >= TURN_SECONDS
        if self._current not in waiting or (len(waiting) > 1 and turn_over):
            self._start_turn(min(waiting, key=lambda name: (self._turn_started.get(name, 0), name)), now)
        return [slot for slot in running if slot.adapter == self._current]

    def _start_turn(self, name: str, now: float) -> None:
        self._turn_started[name] = now
        if name != self._current:
            self._context.set_adapter(self._adapters.get(name))
            self._current = name
