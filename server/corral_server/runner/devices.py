"""Keeps the memory of the GPUs in the runner's activity up to date, as long as the process lives."""

from __future__ import annotations

import asyncio

from corral_core.activity import HEARTBEAT
from corral_server.runner.nvml import Nvml
from corral_server.runner.state import RunnerState


async def watch_devices(state: RunnerState, interval: float = HEARTBEAT) -> None:
    """Reads them every ``interval`` seconds, in a thread; ends at once where there is no driver."""
    nvml = await asyncio.to_thread(Nvml.open)
    if nvml is None:
        return
    try:
        while True:
            devices = await asyncio.to_thread(nvml.devices)
            if devices != state.devices:
                state.devices = devices
                state.notify()
            await asyncio.sleep(interval)
    finally:
        nvml.close()
