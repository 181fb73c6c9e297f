"""Memory of contexts as llama.cpp plans it, without allocating it: ``no_alloc`` of ``llama_model_params``.

- Only the header of the weights is read, so a sparse file with the header has the same numbers. Recurrent state and the
  records of KV cells are allocated nevertheless.
- As a main module it prints the compute buffers of some load configs, one JSON object a line. The process has limits,
  because the header is untrusted (``system.compute_buffers``).
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from corral_core.contracts.model_metadata import ComputeBuffer
from corral_core.weights.load_config import AUTO_PARALLEL, DEFAULT_BATCH_SIZE
from corral_server.runner.llama import log
from corral_server.runner.llama.context import ContextOptions, context_params
from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.library import C, initialize
from corral_server.runner.llama.memory_breakdown import DeviceMemory, memory_by_device
from corral_server.runner.llama.placement import ON_CPU, Placement

_MEMORY_LIMIT: Final = 2 << 30
"""Bytes that the main module may allocate. llama.cpp reserves more than it uses; its parent watches what it uses."""
_CPU_SECONDS: Final = 15
_CONTEXTS: Final = (DEFAULT_BATCH_SIZE, 131072)
"""Shortest and longest context of the main module: a shorter one does not fill a batch."""
_CACHE_TYPES: Final = ("f16", "q8_0")
_ROUNDING: Final = 10486
"""Bytes of the last digit in llama.cpp's log."""
_MEMORY = re.compile(r"^llama_(kv_cache|memory_recurrent): size = +([\d.]+) MiB", re.MULTILINE)
_BUFFER = re.compile(r"(compute|output) buffer size = +([\d.]+) MiB")


@dataclass(frozen=True, slots=True)
class ContextMemory:
    """Bytes of each kind, to 10 KiB, as precise as llama.cpp's log. ``state`` is that of recurrent layers."""

    kv_cache: int
    state: int
    compute: int
    output: int


class MemoryProbe:
    """A model without weights. Only one thread at a time may call it."""

    def __init__(self, path: Path, placement: Placement = ON_CPU) -> None:
        """Read the header of the weights. Raises LoadFailed."""
        initialize()
        params = C.llama_model_default_params()
        params.no_alloc, params.load_mode = True, C.LLAMA_LOAD_MODE_NONE
        self._owned, self._devices = placement.apply(params), placement.devices
        with log.capture() as lines:
            self._model = C.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise LoadFailed(f"{path} cannot be loaded: {log.failure_reason(lines)}")
        self.weights_bytes: int = C.llama_model_size(self._model)
        self.train_context: int = C.llama_model_n_ctx_train(self._model)
        self.layers = log.layer_counts(lines)[1]

    def measure(self, options: ContextOptions) -> ContextMemory:
        """Return the memory of a context with these options. Raises LoadFailed."""
        with log.capture() as lines:
            context = C.llama_init_from_model(self._model, context_params(options))
        if not context:
            raise LoadFailed(f"no context: {log.failure_reason(lines)}")
        C.llama_free(context)
        text = "".join(line for _, line in lines)
        sizes: dict[str, float] = {}
        for kind, size in (*_MEMORY.findall(text), *_BUFFER.findall(text)):
            sizes[kind] = sizes.get(kind, 0.0) + float(size)
        found = (sizes.get(kind, 0.0) for kind in ("kv_cache", "memory_recurrent", "compute", "output"))
        return ContextMemory(*(int(size * 1024 * 1024) for size in found))

    def memory_by_device(self, options: ContextOptions) -> Mapping[int, DeviceMemory]:
        """Return what the model and a context take, by the handle of the device; 0 is the host. Raises LoadFailed."""
        with log.capture() as lines:
            context = C.llama_init_from_model(self._model, context_params(options))
        if not context:
            raise LoadFailed(f"no context: {log.failure_reason(lines)}")
        found = memory_by_device(context)
        C.llama_free(context)
        return found

    def device_memory(self, contexts: Sequence[ContextOptions]) -> Mapping[str, DeviceMemory]:
        """Return what the model and all of these contexts take of each GPU, by its name. Raises LoadFailed."""
        model: dict[int, int] = {}
        added: list[tuple[int, DeviceMemory]] = []
        for options in contexts:
            found = self.memory_by_device(options)
            model = {handle: memory.model for handle, memory in found.items()}
            added += found.items()
        return {
            device.name: DeviceMemory(
                model.get(device.handle, 0),
                sum(memory.context for handle, memory in added if handle == device.handle),
                sum(memory.compute for handle, memory in added if handle == device.handle),
            )
            for device in self._devices
        }

    def close(self) -> None:
        if self._model:
            C.llama_model_free(self._model)
            self._model = None


def compute_buffers(path: Path) -> Iterator[ComputeBuffer]:
    """Yield the compute buffers for a shortest and a longest context, as far as llama.cpp supports the KV cache.

    Raises LoadFailed.
    """
    with closing(MemoryProbe(path)) as probe:
        lengths = _CONTEXTS[0], max(2 * _CONTEXTS[0], min(probe.train_context, _CONTEXTS[1]))
        for parallel, kind, length in product(sorted(AUTO_PARALLEL), _CACHE_TYPES, lengths):
            with suppress(LoadFailed):  # a quantized cache of heads whose length is no multiple of its blocks
                found = probe.measure(ContextOptions(length, parallel, DEFAULT_BATCH_SIZE, cache_type=kind))
                yield ComputeBuffer(parallel, kind, length, found.compute + _ROUNDING)


def main() -> None:
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    try:
        for buffer in compute_buffers(Path(sys.argv[1])):
            print(json.dumps(buffer.to_json()), flush=True)
    except LoadFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
