"""The runner process: it serves HTTP at once, loads the model in a thread, and drains at SIGTERM.

Order of a shutdown:

1. New requests are refused and the runner status reports ``draining``.
2. Running requests end, or the drain timeout passes.
3. The status streams and the HTTP server close.
4. The engine's thread ends and frees its memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import uvloop

from corral_core.base import json_log
from corral_core.base.errors import CorralError
from corral_core.model.effective_spec import example_messages
from corral_core.sources.locate import held_sources
from corral_server.runner.config import RunnerConfig, from_environment
from corral_server.runner.engine.loading.phases import LoadPhases
from corral_server.runner.lifecycle import log
from corral_server.runner.lifecycle.devices import watch_devices
from corral_server.runner.lifecycle.environment import termination_log_from
from corral_server.runner.lifecycle.load_watchdog import watch_load
from corral_server.runner.lifecycle.loading import load_model
from corral_server.runner.lifecycle.process import exit_with_parent, open_listener, report_failure
from corral_server.runner.lifecycle.request_memory import request_memory
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.llama.abort import set_abort_handler
from corral_server.runner.llama.errors import EngineError
from corral_server.system.cgroup_memory import container_memory

if TYPE_CHECKING:
    from corral_server.runner.server import Server


ABANDON_TIMEOUT = 5.0
"""Seconds that a load has to abort after SIGTERM before the process exits without it."""


class Runner:
    """One runner process."""

    def __init__(self, config: RunnerConfig) -> None:
        self._config = config
        self._started = time.monotonic()
        self._stop = asyncio.Event()
        model = config.model
        self._state = RunnerState(model.key, model.spec, config.keep_alive, uid=model.uid)

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        self._handle_signals()
        sock = open_listener(self._config.host, self._config.port, self._config.listen_fd)
        host, port = sock.getsockname()[:2]
        log.event("listening", model=self._config.model.key, host=host, port=port)
        loading = asyncio.create_task(self._load(), name="load")
        server = await asyncio.to_thread(_create_server, self._state)
        serving = asyncio.create_task(server.serve([sock]), name="server")
        devices = asyncio.create_task(watch_devices(self._state), name="devices")
        watchdog = asyncio.create_task(
            watch_load(self._state, self._config.load_timeout, self._exit_stalled), name="load watchdog"
        )
        try:
            return await self._wait(loading)
        finally:
            self._state.close()
            server.should_exit = True
            await serving
            for task in (devices, watchdog):
                task.cancel()
            await asyncio.gather(devices, watchdog, return_exceptions=True)
            if self._state.loaded is not None:
                await asyncio.to_thread(self._state.loaded.engine.close)

    async def _wait(self, loading: asyncio.Task[None]) -> int:
        """Wait for the load, for a signal, and for the end of the drain; return the exit code."""
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set() and self._state.loaded is None:
                return await self._abandon_load(loading)
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

        config = self._config
        phases = LoadPhases()
        loaded = await asyncio.to_thread(
            load_model, config.model.spec, config.engine, roots=config.roots, progress=progress, phases=phases
        )
        loaded = replace(
            loaded,
            accepts_templates=config.accepts_templates,
            image_limits=config.image_limits,
            defaults=config.defaults,
            examples=example_messages(config.model.spec, config.defaults),
        )
        self._state.load_seconds = log.seconds_since(start)
        self._state.request_memory.total = request_memory(loaded, container_memory())
        self._state.set_loaded(loaded)
        log.event(
            "loaded",
            seconds=log.seconds_since(start),
            since_start=log.seconds_since(self._started),
            slots=loaded.engine.slots,
            context_length=loaded.engine.context_length,
            size_bytes=loaded.engine.size_bytes,
            vram_bytes=loaded.engine.vram_bytes,
            gpu_layers=loaded.engine.offload.layers,
            phases=phases.rounded(),
        )

    def _progressed(self, share: float) -> None:
        if self._state.loaded is None:
            self._state.progress = share
            self._state.notify_watchers()

    async def _abandon_load(self, loading: asyncio.Task[None]) -> int:
        """Stop while the model loads: the load aborts at its next progress report, which may never come."""
        self._state.start_draining()
        log.event("drain", loading=True)
        done, _ = await asyncio.wait((loading,), timeout=ABANDON_TIMEOUT)
        if not done:
            log.event("exit", code=0, loading=True)
            os._exit(0)  # the thread cannot be ended
        with contextlib.suppress(EngineError, CorralError, OSError):
            loading.result()
        return 0

    def _exit_stalled(self, reason: str) -> None:
        os._exit(report_failure(reason, self._config.termination_log))

    async def _drain(self) -> int:
        self._state.start_draining()
        log.event("drain", active=self._state.keep_alive.active)
        try:
            await asyncio.wait_for(self._state.wait_until_idle(), self._config.drain_timeout)
        except TimeoutError:
            log.event("drain_timeout", level=30, active=self._state.keep_alive.active)
        return 0

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)


def main() -> None:
    """Entry point of ``corral-runner``."""
    json_log.configure_logging()
    termination_log = termination_log_from(os.environ)
    set_abort_handler(lambda reason: report_failure(reason, termination_log))
    try:
        config = from_environment()
    except CorralError as error:
        sys.exit(report_failure(str(error), termination_log))
    if config.parent_fd is not None:
        exit_with_parent(config.parent_fd)
    try:
        with held_sources(config.roots), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(Runner(config).run())
    except (EngineError, CorralError, OSError, MemoryError) as error:
        sys.exit(report_failure(str(error) or type(error).__name__, termination_log))
    log.event("exit", code=code)
    sys.exit(code)


def _create_server(state: RunnerState) -> Server:
    """Import and create the server while the weights load, which hides a fifth of a second of each cold start."""
    from corral_server.runner.server import create_server

    return create_server(state)
