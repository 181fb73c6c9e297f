"""Health of the runner's GPUs: which errors mean that a device must not serve any longer.

A device has failed when, since the runner started,

- it had an uncorrected ECC error: weights or KV cache may be wrong;
- the driver reported an Xid error that is not one of an application;
- the driver has lost it.

Errors from before the start do not count: the memory of this process was allocated after them, and a device on which
every start failed would be replaced without end. What a runner cannot load on, its load reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from typing import Final

from corral_server.system.nvml import DeviceReading, XidError

APPLICATION, DEVICE = "application", "device"
"""Kinds of Xid errors."""

APPLICATION_XIDS: Final = frozenset({13, 31, 43, 45, 68, 109})
"""Xids that an application causes, after which the device is healthy; all others are of the device.

Source: the list of ignored Xids in NVIDIA's device plugin,
https://github.com/NVIDIA/k8s-device-plugin/blob/main/internal/rm/health.go.
"""


class DeviceHealth:
    """Readings and errors of the GPUs. ``xid_errors`` counts by uuid and kind."""

    def __init__(self) -> None:
        self.readings: tuple[DeviceReading, ...] = ()
        self.xid_errors: Counter[tuple[str, str]] = Counter()
        self._names: dict[str, str] = {}
        self._first_errors: dict[str, int] = {}

    def observe(
        self, readings: Sequence[DeviceReading], *, lost: Set[str] = frozenset(), errors: Sequence[XidError] = ()
    ) -> str:
        """Record what was read, and the errors since the last call; return why a device has failed, "" if none has."""
        self.readings = tuple(readings)
        failures = [*self._lost(lost), *self._memory_errors(), *self._xid_errors(errors)]
        return failures[0] if failures else ""

    def _lost(self, lost: Set[str]) -> list[str]:
        return [f"{self._names.get(uuid, 'the GPU')} ({uuid}) is lost to the driver" for uuid in sorted(lost)]

    def _memory_errors(self) -> list[str]:
        failures = []
        for reading in self.readings:
            uuid, errors = reading.device.uuid, reading.uncorrected_errors or 0
            self._names[uuid] = f"GPU {reading.index}, {reading.device.name},"
            if (new := errors - self._first_errors.setdefault(uuid, errors)) > 0:
                failures.append(f"{self._names[uuid]} ({uuid}) has {new} new uncorrected ECC errors")
        return failures

    def _xid_errors(self, errors: Sequence[XidError]) -> list[str]:
        failures = []
        for error in errors:
            kind = APPLICATION if error.code in APPLICATION_XIDS else DEVICE
            self.xid_errors[error.uuid, kind] += 1
            if kind == DEVICE:
                failures.append(f"{self._names.get(error.uuid, 'the GPU')} ({error.uuid}) reports Xid {error.code}")
        return failures
