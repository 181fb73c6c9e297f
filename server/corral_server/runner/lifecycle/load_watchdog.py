"""Watchdog of the load: it ends a runner whose load makes no progress, however long the load takes in all.

The thread that loads may hang in a read that never returns, so the process exits without waiting for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from corral_core.base.durations import FOREVER, format_duration
from corral_server.runner.lifecycle.state import RunnerState

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the progress."""


async def watch_load(state: RunnerState, timeout: float, end: Callable[[str], object]) -> None:
    """Return when the model is loaded; call ``end`` with the reason after ``timeout`` seconds without progress."""
    if timeout == FOREVER:
        return
    furthest, since = -1.0, time.monotonic()
    while state.loaded is None and not state.draining:
        now = time.monotonic()
        if state.progress > furthest:
            furthest, since = state.progress, now
        if now >= since + timeout:
            end(
                f"the load made no progress for {format_duration(timeout)} (OLLAMA_LOAD_TIMEOUT) and stopped at "
                f"{state.progress:.0%}: check the disk or the network from which the weights are read"
            )
            return
        await asyncio.sleep(min(CHECK_INTERVAL, since + timeout - now))
