"""Which adapter's sequences are decoded now: llama.cpp applies its adapters to all of a batch.

What always holds: a batch has sequences of one adapter only, those without any counting as one; each adapter that has
work gets its turn, the one that waited longest first. A turn is more than one step, because changing the adapter costs
something (measured on a CPU: 2.5 ms, where a step takes 12 ms).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from corral_server.runner.llama import Adapter, LlamaContext
from corral_server.runner.sequence import Slot

TURN = 0.06
"""Seconds after which another adapter may decode."""


class Turns:
    """Used by the engine's thread alone. The model without an adapter has the name ``""``."""

    def __init__(self, context: LlamaContext, adapters: Mapping[str, Adapter]) -> None:
        self._context = context
        self._adapters = adapters
        self._current = ""
        self._since: dict[str, float] = {}
        """When each adapter's last turn began."""

    def of(self, running: Sequence[Slot]) -> Sequence[Slot]:
        """Those of the running slots that are in this step's batch; the context is ready for them."""
        if not self._adapters or not running:
            return running
        waiting = {slot.adapter for slot in running}
        now = time.monotonic()
        if self._current not in waiting or (len(waiting) > 1 and now - self._since.get(self._current, 0) >= TURN):
            self._change(min(waiting, key=lambda name: (self._since.get(name, 0), name)), now)
        return [slot for slot in running if slot.adapter == self._current]

    def _change(self, name: str, now: float) -> None:
        self._since[name] = now
        if name != self._current:
            self._context.use(self._adapters.get(name))
            self._current = name
