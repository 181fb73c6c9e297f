"""Reading of the GPUs as long as the process lives: memory for the status, counters for the metrics, and health.

A device that has failed ends the readiness of the runner for good: no new request starts, running ones may end. The
operator replaces the pod, or local mode the process.
"""

from __future__ import annotations

import asyncio
import time

from corral_core.contracts.runner_status import HEARTBEAT_INTERVAL
from corral_server.runner.lifecycle import log
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.system.nvml import Nvml

ERROR_INTERVAL = 1.0
"""Seconds between two looks at the errors that the driver reports, which cost a system call."""


async def watch_devices(
    state: RunnerState, interval: float = HEARTBEAT_INTERVAL, *, error_interval: float = ERROR_INTERVAL
) -> None:
    """Read the devices every ``interval`` seconds, in a thread; return at once without a driver."""
    nvml = await asyncio.to_thread(Nvml.open)
    if nvml is None:
        return
    try:
        read_at = await _read(state, nvml)
        await asyncio.to_thread(nvml.watch_errors)
        while True:
            await asyncio.sleep(min(interval, error_interval))
            errors = await asyncio.to_thread(nvml.xid_errors)
            _report(state, state.device_health.observe(state.device_health.readings, errors=errors))
            if time.monotonic() >= read_at + interval:
                read_at = await _read(state, nvml)
    finally:
        nvml.close()


async def _read(state: RunnerState, nvml: Nvml) -> float:
    """Read the devices; return when."""
    readings = await asyncio.to_thread(nvml.readings)
    _report(state, state.device_health.observe(readings, lost=nvml.lost))
    devices = tuple(reading.device for reading in readings)
    if devices != state.devices:
        state.devices = devices
        state.notify_watchers()
    return time.monotonic()


def _report(state: RunnerState, failure: str) -> None:
    if failure and not state.device_failure:
        log.event("device_failed", level=40, reason=failure)
        state.fail_device(failure)
