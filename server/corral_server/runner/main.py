"""The runner process: HTTP is up at once, the model loads beside it, SIGTERM drains.

Order of a shutdown: no new request is begun and ``draining`` is said; running requests end, up to the drain timeout;
the activity streams and the server close; the engine's thread ends and frees its memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import uvloop

from corral_core import jsonlog
from corral_core.errors import CorralError
from corral_server.runner import log
from corral_server.runner.config import RunnerConfig, from_environment
from corral_server.runner.devices import watch_devices
from corral_server.runner.generation import EngineError
from corral_server.runner.llama_abort import on_abort
from corral_server.runner.loading import load
from corral_server.runner.process import fail, listener, watch_parent
from corral_server.runner.state import RunnerState
from corral_server.runner.told import termination_log_of

if TYPE_CHECKING:
    from corral_server.runner.serving import Server


class Runner:
    """One runner process."""

    def __init__(self, config: RunnerConfig) -> None:
        self._config = config
        self._started = time.monotonic()
        self._stop = asyncio.Event()
        model = config.model
        self._state = RunnerState(model.key, model.spec, config.keep_alive)

    async def run(self) -> int:
        """Serves until SIGTERM or SIGINT; returns the exit code."""
        self._handle_signals()
        sock = listener(self._config.host, self._config.port, self._config.listen_fd)
        host, port = sock.getsockname()[:2]
        log.event("listening", model=self._config.model.key, host=host, port=port)
        loading = asyncio.create_task(self._load(), name="load")
        server = await asyncio.to_thread(_server_of, self._state)
        serving = asyncio.create_task(server.serve([sock]), name="server")
        devices = asyncio.create_task(watch_devices(self._state), name="devices")
        try:
            return await self._wait(loading)
        finally:
            self._state.close()
            server.should_exit = True
            await serving
            devices.cancel()
            await asyncio.gather(devices, return_exceptions=True)
            if self._state.loaded is not None:
                await asyncio.to_thread(self._state.loaded.engine.close)

    async def _wait(self, loading: asyncio.Task[None]) -> int:
        """From the loading to the end of the drain."""
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set() and self._state.loaded is None:
                return await self._give_up(loading)
            loading.result()
            await stopped
        finally:
            stopped.cancel()
        return await self._drain()

    async def _load(self) -> None:
        log.event("loading", model=self._config.model.key, source=self._config.model.spec.source)
        start = time.monotonic()
        loop = asyncio.get_running_loop()

        def progress(share: float) -> bool:
            loop.call_soon_threadsafe(self._progressed, share)
            return not self._stop.is_set()

        loaded = await asyncio.to_thread(load, self._config, progress)
        self._state.load_seconds = log.since(start)
        self._state.now_loaded(loaded)
        log.event(
            "loaded",
            seconds=log.since(start),
            since_start=log.since(self._started),
            slots=loaded.engine.slots,
            context_length=loaded.engine.context_length,
            size_bytes=loaded.engine.size_bytes,
        )

    def _progressed(self, share: float) -> None:
        if self._state.loaded is None:
            self._state.progress = share
            self._state.notify()

    async def _give_up(self, loading: asyncio.Task[None]) -> int:
        """Stopped while loading: the loading aborts itself at its next step."""
        self._state.drain()
        log.event("drain", loading=True)
        with contextlib.suppress(EngineError, CorralError, OSError):
            await loading
        return 0

    async def _drain(self) -> int:
        self._state.drain()
        log.event("drain", active=self._state.keep_alive.active)
        try:
            await asyncio.wait_for(self._state.idle(), self._config.drain_timeout)
        except TimeoutError:
            log.event("drain-timeout", level=30, active=self._state.keep_alive.active)
        return 0

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)


def main() -> None:
    """Entry point of ``corral-runner``."""
    jsonlog.configure()
    termination_log = termination_log_of(os.environ)
    on_abort(lambda reason: fail(reason, termination_log))
    try:
        config = from_environment()
    except CorralError as error:
        sys.exit(fail(str(error), termination_log))
    if config.parent_fd is not None:
        watch_parent(config.parent_fd)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(Runner(config).run())
    except (EngineError, CorralError, OSError, MemoryError) as error:
        sys.exit(fail(str(error) or type(error).__name__, termination_log))
    log.event("exit", code=code)
    sys.exit(code)


def _server_of(state: RunnerState) -> Server:
    """Imported only here, while the weights already load: that hides a fifth of a second of every cold start."""
    from corral_server.runner.serving import server_of

    return server_of(state)
