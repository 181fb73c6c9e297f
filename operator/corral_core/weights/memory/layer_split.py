"""Distribution of a model's layers over GPUs, as llama.cpp does it (``split_mode`` ``layer``).

- The last layers are on GPUs. The output layer counts as one more, behind all others.
- Source: ``load_tensors`` in ``src/llama-model.cpp``, with the same 32-bit arithmetic, because a layer at the edge of a
  share changes the device by it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from ctypes import c_float
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """How a model is distributed over GPUs.

    ``layers`` is the number of layers on GPUs, the output layer included (``n_gpu_layers``); None means all.
    ``shares`` is the ratio of layers of each GPU (``tensor_split``), by default equal ones. The experts of the first
    ``expert_layers_on_cpu`` layers stay in host memory. ``overhead`` is memory in bytes that is reserved on each GPU
    (``OLLAMA_GPU_OVERHEAD``).
    """

    layers: int | None = None
    shares: tuple[float, ...] = ()
    expert_layers_on_cpu: int = 0
    overhead: int = 0


def devices_of_layers(layers: int, devices: int, options: GpuOptions) -> list[int | None]:
    """Return the GPU of each of the ``layers`` and, last, of the output layer; None on the CPU."""
    total = layers + 1
    offloaded = total if options.layers is None else max(0, min(options.layers, total))
    if not devices or not offloaded:
        return [None] * total
    edges = _edges(options.shares or (1.0,) * devices)
    found = [min(bisect_right(edges, _single(index / offloaded)), devices - 1) for index in range(offloaded)]
    return [None] * (total - offloaded) + list(found)


def _edges(shares: Sequence[float]) -> list[float]:
    sums = list(accumulate(shares, lambda one, other: _single(one + _single(other)), initial=0.0))[1:]
    return [_single(edge / sums[-1]) for edge in sums]


def _single(number: float) -> float:
    """Round to 32 bits."""
    return c_float(number).value
