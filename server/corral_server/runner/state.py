"""The runner's state that all routes share: whether requests are taken, and the truth about activity.

Lives in one event loop, so that checking and counting a request is one step: none is begun after draining started.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from corral_core.activity import HEARTBEAT, Activity, Device
from corral_core.facts import ModelFacts
from corral_core.model import ModelSpec
from corral_core.names import canonical
from corral_server.runner.generation import Engine
from corral_server.runner.keepalive import KeepAlive
from corral_server.runner.options import Options
from corral_server.runner.origin import origin
from corral_server.runner.templates import ChatTemplate
from corral_server.wire.errors import ApiError

COALESCE = 0.02
"""Seconds in which several changes become one line of the activity stream."""


class NotServing(ApiError):
    """The request was not begun and may go elsewhere; ``reason`` is ``loading`` or ``draining``."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            503, f"the model is {'loading' if reason == 'loading' else 'being unloaded'}, please try again"
        )
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Loaded:
    """What exists once the model is loaded. ``options`` are the Model's parameters over the defaults."""

    engine: Engine
    facts: ModelFacts
    template: ChatTemplate
    options: Options
    system: str = ""
    adapters: frozenset[str] = frozenset()
    """The canonical names that mean an adapter."""
    weights: ModelFacts | None = None
    """The facts of the weights alone, where the Model's own template makes ``facts`` others."""
    file: Path | None = None
    """The weights."""

    def adapter_of(self, model: str) -> str:
        """The engine's name of the adapter that a request for ``model`` means; empty for the model as it is."""
        if not self.adapters:
            return ""
        name = canonical(model)
        return name if name in self.adapters else ""


@dataclass
class RunnerState:
    """One runner. ``spec`` is the Model's; ``changed`` is replaced by a new event at every change."""

    name: str
    spec: ModelSpec
    keep_alive: KeepAlive
    loaded: Loaded | None = None
    progress: float = 0.0
    draining: bool = False
    load_seconds: float = 0.0
    devices: tuple[Device, ...] = ()
    closing: bool = False
    _by_gateway: Counter[str] = field(default_factory=Counter)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def serving(self) -> Loaded:
        """Raises NotServing while loading or draining."""
        if self.draining:
            raise NotServing("draining")
        if self.loaded is None:
            raise NotServing("loading")
        return self.loaded

    @contextmanager
    def request(self, keep_alive: float | None) -> Iterator[Loaded]:
        """Counts a request from here to the end of the block. Raises NotServing."""
        loaded, sender = self.serving(), origin.get()
        self._by_gateway[sender] += 1
        self._keep(self.keep_alive.begun(keep_alive))
        try:
            yield loaded
        finally:
            self._by_gateway[sender] -= 1
            if not self._by_gateway[sender]:
                del self._by_gateway[sender]
            self._keep(self.keep_alive.ended(time.time()))

    def now_loaded(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.progress = 1.0
        self._keep(self.keep_alive.loaded(time.time()))

    def unload(self) -> None:
        """An unload request; a model that is not loaded yet is left alone, as in Ollama."""
        if self.loaded is not None:
            self._keep(self.keep_alive.unloading(time.time()))

    def drain(self) -> None:
        self.draining = True
        self.notify()

    def close(self) -> None:
        """Ends the activity streams."""
        self.closing = True
        self.notify()

    def activity(self) -> Activity:
        engine = self.loaded.engine if self.loaded else None
        active, slots = self.keep_alive.active, engine.slots if engine else 0
        return Activity(
            in_flight=min(active, slots),
            waiting=max(0, active - slots),
            slots=slots,
            loaded=engine is not None,
            draining=self.draining,
            keep_alive=self.keep_alive.seconds,
            last_end=self.keep_alive.last_end,
            expires_at=self.keep_alive.expires_at,
            size_bytes=engine.size_bytes if engine else 0,
            vram_bytes=engine.vram_bytes if engine else 0,
            context_length=engine.context_length if engine else 0,
            progress=round(self.progress, 3),
            by_gateway={sender: count for sender, count in self._by_gateway.items() if sender},
            devices=self.devices,
        )

    async def watch(self) -> AsyncIterator[Activity]:
        """The activity now, at every change (several within ``COALESCE`` as one), every heartbeat, and at the end."""
        while True:
            changed, last = self._changed, self.closing
            yield self.activity()
            if last:
                return
            await asyncio.sleep(COALESCE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), HEARTBEAT)

    async def settled(self, seconds: float) -> None:
        """Returns when the model is loaded or the runner is to end, after ``seconds`` at the latest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.loaded is None and not self.draining and not self.closing:
                    await self._changed.wait()

    async def idle(self) -> None:
        """Returns when no request is active."""
        while self.keep_alive.active:
            await self._changed.wait()

    def notify(self) -> None:
        """Wakes who watches; only in the event loop."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _keep(self, keep_alive: KeepAlive) -> None:
        self.keep_alive = keep_alive
        self.notify()
