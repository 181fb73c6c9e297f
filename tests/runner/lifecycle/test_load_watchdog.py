"""Watchdog of the load: only a lack of progress ends it."""

from __future__ import annotations

import asyncio

from corral_core.base.durations import FOREVER
from corral_core.model.model import ModelSpec
from corral_server.runner.lifecycle.keep_alive import KeepAlive, KeepAliveBounds
from corral_server.runner.lifecycle.load_watchdog import watch_load
from corral_server.runner.lifecycle.state import RunnerState
from tests.support.waiting import auntil

TIMEOUT = 0.2


def state() -> RunnerState:
    return RunnerState("default/tiny", ModelSpec(source="file:///w.gguf"), KeepAlive(300.0, KeepAliveBounds()))


async def test_a_load_without_progress_ends_with_its_share() -> None:
    loading, reasons = state(), list[str]()
    loading.progress = 0.35
    await asyncio.wait_for(watch_load(loading, TIMEOUT, reasons.append), 10)
    (reason,) = reasons
    assert reason.startswith("the load made no progress for 200ms (OLLAMA_LOAD_TIMEOUT) and stopped at 35%: check the")


async def test_a_load_may_take_many_timeouts_while_it_progresses() -> None:
    loading, reasons, loop = state(), list[str](), asyncio.get_running_loop()
    watching = asyncio.create_task(watch_load(loading, TIMEOUT, reasons.append))
    start = loop.time()

    def progress() -> None:
        loading.progress = min(1.0, (loop.time() - start) / (5 * TIMEOUT))
        if loading.progress < 1:
            loop.call_later(TIMEOUT / 20, progress)

    progress()
    await auntil(lambda: loading.progress == 1.0)
    assert reasons == []
    await auntil(lambda: reasons)
    assert loop.time() - start >= 6 * TIMEOUT - 0.05
    await watching


async def test_without_a_limit_nothing_is_watched() -> None:
    await asyncio.wait_for(watch_load(state(), FOREVER, _fail), 10)


async def test_a_drain_ends_the_watch() -> None:
    draining = state()
    draining.start_draining()
    await asyncio.wait_for(watch_load(draining, 60, _fail), 10)


def _fail(reason: str) -> None:
    raise AssertionError(reason)
