"""The adapter to NVML, NVIDIA's own word on the memory of its GPUs: the only module that imports ``pynvml``.

What always holds: where there is no driver there are simply no devices, and nothing is imported to find that out; a
device that says nothing of its memory (a MIG parent, an integrated GPU) or is lost is left out; no call raises, and
what is wrong is logged when it begins and not at every call.
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any

from corral_core.activity import Device

log = logging.getLogger("corral.runner.nvml")

_LIBRARY = "libnvidia-ml.so.1"


class Nvml:
    """The driver's interface from ``open`` to ``close``; for one thread at a time."""

    def __init__(self, binding: Any) -> None:  # pynvml has no types
        self._binding = binding
        self._wrong: set[str] = set()

    @classmethod
    def open(cls) -> Nvml | None:
        """None without a driver, or with one that does not start."""
        try:
            ctypes.CDLL(_LIBRARY)
        except OSError:
            return None
        import pynvml

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            log.warning("NVML does not start, so GPU memory is not told: %s", error)
            return None
        return cls(pynvml)

    def devices(self) -> tuple[Device, ...]:
        """Every GPU that this process may see, with its memory now."""
        wrong: set[str] = set()
        try:
            count = self._binding.nvmlDeviceGetCount()
        except self._binding.NVMLError as error:
            wrong.add(f"NVML does not tell how many GPUs there are: {error}")
            count = 0
        found = [self._device(index, wrong) for index in range(count)]
        for words in sorted(wrong - self._wrong):
            log.warning(words)
        self._wrong = wrong
        return tuple(device for device in found if device is not None)

    def close(self) -> None:
        try:
            self._binding.nvmlShutdown()
        except self._binding.NVMLError as error:
            log.warning("NVML does not shut down: %s", error)

    def _device(self, index: int, wrong: set[str]) -> Device | None:
        binding = self._binding
        try:
            handle = binding.nvmlDeviceGetHandleByIndex(index)
            memory = binding.nvmlDeviceGetMemoryInfo(handle)
            name, uuid = binding.nvmlDeviceGetName(handle), binding.nvmlDeviceGetUUID(handle)
        except binding.NVMLError_NotSupported:
            return None
        except binding.NVMLError as error:
            wrong.add(f"GPU {index} is left out: {error}")
            return None
        return Device(str(name), str(uuid), total=int(memory.total), free=int(memory.free), used=int(memory.used))
