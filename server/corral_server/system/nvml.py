"""Adapter to NVML, the management library of NVIDIA GPUs; the only module that imports ``pynvml``.

Invariants:

- without a driver there are no devices, and pynvml is not imported;
- a device without memory figures (a MIG parent, an integrated GPU) and a lost device are omitted;
- a counter that a device does not have is None;
- no call raises or waits; a problem is logged when it begins, not at every call.

The calls: https://docs.nvidia.com/deploy/nvml-api/.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from corral_core.contracts.runner_status import GPUDevice

log = logging.getLogger("corral.runner.nvml")

_LIBRARY = "libnvidia-ml.so.1"
_MAX_EVENTS = 64
"""Events that one call returns at most; the next call returns the others."""


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One GPU at one moment. ``index`` is NVML's number of the device.

    - ``utilization``, ``memory_utilization``: share of the last sample period, 0 to 1, in which a kernel ran, and in
      which memory was read or written.
    - ``temperature``: degrees Celsius. ``power``: watts.
    - ``uncorrected_errors``: uncorrected ECC errors since the driver was loaded.
    """

    index: int
    device: GPUDevice
    utilization: float | None = None
    memory_utilization: float | None = None
    temperature: int | None = None
    power: float | None = None
    uncorrected_errors: int | None = None


@dataclass(frozen=True, slots=True)
class XidError:
    """An error that the driver reported of the device with this uuid; ``code`` is the Xid."""

    uuid: str
    code: int


class Nvml:
    """A session with the driver, from ``open`` to ``close``; for one thread at a time."""

    def __init__(self, binding: Any) -> None:  # pynvml has no types
        self._binding = binding
        self._problems: set[str] = set()
        self._known: dict[int, str] = {}
        self._events: Any = None
        self.lost: frozenset[str] = frozenset()
        """The uuids of devices that an earlier call of ``readings`` returned and that the driver has lost since."""

    @classmethod
    def open(cls) -> Nvml | None:
        """Start the session; None without a driver, or with one that does not start."""
        try:
            ctypes.CDLL(_LIBRARY)
        except OSError:
            return None
        import pynvml

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            log.warning("NVML does not start, so GPU memory is not reported: %s", error)
            return None
        return cls(pynvml)

    def readings(self) -> tuple[DeviceReading, ...]:
        """Return the GPUs that are visible to this process as they are now."""
        problems: set[str] = set()
        lost: set[str] = set()
        try:
            count = self._binding.nvmlDeviceGetCount()
        except self._binding.NVMLError as error:
            problems.add(f"NVML does not report the number of GPUs: {error}")
            count = 0
        found = [self._reading(index, problems, lost=lost) for index in range(count)]
        for text in sorted(problems - self._problems):
            log.warning(text)
        self._problems, self.lost = problems, frozenset(lost)
        return tuple(reading for reading in found if reading is not None)

    def watch_errors(self) -> None:
        """Register for the Xid errors of the visible GPUs; those that cannot report them are left out."""
        binding = self._binding
        try:
            self._events = binding.nvmlEventSetCreate()
            for index in self._known:
                self._register(binding.nvmlDeviceGetHandleByIndex(index))
        except binding.NVMLError as error:
            log.warning("Xid errors of GPUs are not reported: %s", error)

    def xid_errors(self) -> tuple[XidError, ...]:
        """Return the Xid errors since the last call, without waiting; none before ``watch_errors``."""
        binding = self._binding
        found: list[XidError] = []
        while self._events is not None and len(found) < _MAX_EVENTS:
            try:
                event = binding.nvmlEventSetWait(self._events, 0)
                if event.eventType == binding.nvmlEventTypeXidCriticalError:
                    found.append(XidError(str(binding.nvmlDeviceGetUUID(event.device)), int(event.eventData)))
            except binding.NVMLError_Timeout:
                break
            except binding.NVMLError as error:  # a lost device; ``readings`` names it
                log.warning("Xid errors of GPUs are no longer reported: %s", error)
                self._events = None
        return tuple(found)

    def close(self) -> None:
        try:
            if self._events is not None:
                self._binding.nvmlEventSetFree(self._events)
            self._binding.nvmlShutdown()
        except self._binding.NVMLError as error:
            log.warning("NVML does not shut down: %s", error)

    def _reading(self, index: int, problems: set[str], *, lost: set[str]) -> DeviceReading | None:
        binding = self._binding
        try:
            handle = binding.nvmlDeviceGetHandleByIndex(index)
            memory = binding.nvmlDeviceGetMemoryInfo(handle)
            name, uuid = str(binding.nvmlDeviceGetName(handle)), str(binding.nvmlDeviceGetUUID(handle))
        except binding.NVMLError_NotSupported:
            return None
        except binding.NVMLError as error:
            problems.add(f"GPU {index} is omitted: {error}")
            if isinstance(error, binding.NVMLError_GpuIsLost) and index in self._known:
                lost.add(self._known[index])
            return None
        self._known[index] = uuid
        device = GPUDevice(name, uuid, total=int(memory.total), free=int(memory.free), used=int(memory.used))
        return self._with_counters(index, device, handle=handle)

    def _with_counters(self, index: int, device: GPUDevice, *, handle: Any) -> DeviceReading:
        binding = self._binding
        rates = self._counter(lambda: binding.nvmlDeviceGetUtilizationRates(handle))
        power = self._counter(lambda: binding.nvmlDeviceGetPowerUsage(handle))
        errors = binding.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, binding.NVML_VOLATILE_ECC
        return DeviceReading(
            index,
            device,
            utilization=rates.gpu / 100 if rates is not None else None,
            memory_utilization=rates.memory / 100 if rates is not None else None,
            temperature=self._counter(lambda: binding.nvmlDeviceGetTemperature(handle, binding.NVML_TEMPERATURE_GPU)),
            power=power / 1000 if power is not None else None,
            uncorrected_errors=self._counter(lambda: binding.nvmlDeviceGetTotalEccErrors(handle, *errors)),
        )

    def _counter(self, read: Callable[[], Any]) -> Any:
        """Return None for what the device, or the driver, does not have: the next reading tells whether it is lost."""
        try:
            return read()
        except self._binding.NVMLError:
            return None

    def _register(self, handle: Any) -> None:
        binding = self._binding
        try:
            supported = binding.nvmlDeviceGetSupportedEventTypes(handle)
            if supported & binding.nvmlEventTypeXidCriticalError:
                binding.nvmlDeviceRegisterEvents(handle, binding.nvmlEventTypeXidCriticalError, self._events)
        except binding.NVMLError_NotSupported:
            return
