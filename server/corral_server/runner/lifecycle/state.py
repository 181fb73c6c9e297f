"""State of the runner that all endpoints share: the loaded model, the active requests, keep_alive, draining.

The state is used in one event loop only, so that checking whether requests are accepted and counting a request is one
step: no request starts after draining has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from corral_core.contracts.model_identity import model_identity
from corral_core.contracts.runner_status import HEARTBEAT_INTERVAL, GPUDevice, RunnerStatus
from corral_core.model.model import ModelSpec
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.short_contexts import ShortContexts
from corral_server.runner.lifecycle.gpus.health import DeviceHealth
from corral_server.runner.lifecycle.keep_alive import KeepAlive
from corral_server.runner.lifecycle.sending_gateway import sending_gateway
from corral_server.runner.memory.budget import RequestMemory
from corral_server.wire.errors import ApiError

COALESCE = 0.02
"""Seconds within which several changes are reported as one line of the status stream."""


class RunnerUnavailable(ApiError):
    """503: the request was not started, so the gateway may retry it on another runner.

    ``reason`` is ``loading`` or ``draining``; it is sent in the retry header.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            503, f"the model is {'loading' if reason == 'loading' else 'being unloaded'}, please try again"
        )
        self.reason = reason


@dataclass
class RunnerState:
    """State of one runner process. ``name`` is the Model's ``namespace/name``, ``spec`` its spec, ``uid`` its uid.

    ``device_failure`` says which GPU has failed and why; "" if none has.
    ``_changed`` is an event that is set and replaced by a new one at every change.
    """

    name: str
    spec: ModelSpec
    keep_alive: KeepAlive
    loaded: LoadedModel | None = None
    progress: float = 0.0
    draining: bool = False
    load_seconds: float = 0.0
    devices: tuple[GPUDevice, ...] = ()
    device_failure: str = ""
    device_health: DeviceHealth = field(default_factory=DeviceHealth)
    closing: bool = False
    request_memory: RequestMemory = field(default_factory=RequestMemory)
    uid: str = ""
    short_contexts: ShortContexts = field(default_factory=ShortContexts)
    _active_by_gateway: Counter[str] = field(default_factory=Counter)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def identity(self) -> str:
        """The identity of the Model, by which requests for another one are refused."""
        return model_identity(self.name, self.uid)

    def require_loaded(self) -> LoadedModel:
        """Return the loaded model. Raises RunnerUnavailable while the runner loads or drains."""
        if self.draining:
            raise RunnerUnavailable("draining")
        if self.loaded is None:
            raise RunnerUnavailable("loading")
        return self.loaded

    @contextmanager
    def active_request(self, keep_alive: float | None) -> Iterator[LoadedModel]:
        """Count a request as active until the end of the block; ``keep_alive`` is in seconds.

        Raises RunnerUnavailable.
        """
        loaded, sender = self.require_loaded(), sending_gateway.get()
        self._active_by_gateway[sender] += 1
        self._set_keep_alive(self.keep_alive.request_started(keep_alive))
        try:
            yield loaded
        finally:
            self._active_by_gateway[sender] -= 1
            if not self._active_by_gateway[sender]:
                del self._active_by_gateway[sender]
            self._set_keep_alive(self.keep_alive.request_ended(time.monotonic()))

    def set_loaded(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.progress = 1.0
        self._set_keep_alive(self.keep_alive.model_loaded(time.monotonic()))

    def unload(self) -> None:
        """Apply an unload request. It has no effect while the model loads, as in Ollama's ``server/sched.go``."""
        if self.loaded is not None:
            self._set_keep_alive(self.keep_alive.unload_requested(time.monotonic()))

    def start_draining(self) -> None:
        self.draining = True
        self.notify_watchers()

    def fail_device(self, reason: str) -> None:
        """Accept no more requests, because a GPU has failed; running ones may end."""
        self.device_failure = reason
        self.start_draining()

    def close(self) -> None:
        """End the status streams."""
        self.closing = True
        self.notify_watchers()

    def status(self) -> RunnerStatus:
        engine = self.loaded.engine if self.loaded else None
        active, slots = self.keep_alive.active, engine.slots if engine else 0
        return RunnerStatus(
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
            load_progress=round(self.progress, 3),
            by_gateway={sender: count for sender, count in self._active_by_gateway.items() if sender},
            devices=self.devices,
            device_failure=self.device_failure,
            offload=engine.offload if engine else None,
            generated_tokens=engine.metrics.generated_tokens if engine else None,
        )

    async def watch(self, interval: float = HEARTBEAT_INTERVAL) -> AsyncIterator[RunnerStatus]:
        """Yield the status now, after every change (coalesced by ``COALESCE``), at every heartbeat and at the end.

        While requests are active, a heartbeat follows after ``interval`` seconds.
        """
        while True:
            changed, last = self._changed, self.closing
            yield self.status()
            if last:
                return
            await asyncio.sleep(COALESCE)
            with contextlib.suppress(TimeoutError):
                pause = interval if self.keep_alive.active else HEARTBEAT_INTERVAL
                await asyncio.wait_for(changed.wait(), pause)

    async def wait_until_loaded(self, seconds: float) -> None:
        """Wait until the model is loaded, draining or shutdown has started, or ``seconds`` have passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.loaded is None and not self.draining and not self.closing:
                    await self._changed.wait()

    async def wait_until_idle(self) -> None:
        """Wait until no request is active."""
        while self.keep_alive.active:
            await self._changed.wait()

    def notify_watchers(self) -> None:
        """Wake all waiting watchers. Must be called in the event loop."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _set_keep_alive(self, keep_alive: KeepAlive) -> None:
        self.keep_alive = keep_alive
        self.notify_watchers()
