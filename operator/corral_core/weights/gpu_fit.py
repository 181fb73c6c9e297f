"""The largest part of a model that fits on the GPUs of a node or a pod, and why it is not more.

- First all layers; then, for a mixture of experts, all layers without the experts of the first ones; then the last
  layers.
- Every GPU gets the same number of layers if they fit, else layers that fill it to the same part. The distribution
  is given as the number of layers of each GPU: as ``tensor_split`` it makes llama.cpp distribute them in this way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from corral_core.contracts.model_metadata import ModelDimensions
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory.device_memory import LayerSplit
from corral_core.weights.memory.layer_split import GpuOptions, devices_of_layers
from corral_core.weights.memory_estimate import ALL_LAYERS, MIB, MemoryEstimate, estimate_memory

_STEPS = 64
"""Steps between an empty and a full GPU."""


@dataclass(frozen=True, slots=True)
class GpuFit:
    """What fits: ``layers`` of ``total_layers``, the output layer included.

    ``options.shares`` are the layers of each of several GPUs, and ``estimate`` is the memory with these options.
    ``reason`` says with numbers why not all of the model is on GPUs; it is empty if it is.
    """

    options: GpuOptions
    total_layers: int
    estimate: MemoryEstimate
    reason: str

    @property
    def layers(self) -> int:
        return self.options.layers or 0


def fit_on_gpus(
    dims: ModelDimensions,
    config: LoadConfig,
    free: Sequence[int],
    *,
    adapters: int = 0,
    options: GpuOptions = ALL_LAYERS,
) -> GpuFit:
    """Return the largest part of the model that fits into ``free``, the free bytes of each GPU.

    ``options`` are bounds: at most so many layers on GPUs, at least so many without their
    experts, and the shares if there are any.
    """
    return _Search(dims, config, free, adapters=adapters, options=options).result()


class _Search:
    def __init__(
        self, dims: ModelDimensions, config: LoadConfig, free: Sequence[int], *, adapters: int, options: GpuOptions
    ) -> None:
        self._dims, self._config, self._free = dims, config, free
        self._adapters, self._options = adapters, options
        self._total = 1 + sum(group.count for group in dims.layer_groups)

    def result(self) -> GpuFit:
        wanted = self._total if self._options.layers is None else min(self._options.layers, self._total)
        first = replace(self._options, layers=wanted)
        reason = self._problem(first)
        if not reason:
            part = f"at most {wanted} of {self._total} layers are to be on GPUs" if wanted < self._total else ""
            return self._fit(first, part)
        found = self._fewest_experts(first) or self._most_layers(first) or replace(first, layers=0)
        return self._fit(found, reason)

    def _fewest_experts(self, options: GpuOptions) -> GpuOptions | None:
        """Return the options with the fewest layers whose experts are in host memory."""
        most = self._total - 1 if any(group.experts for group in self._dims.layer_groups) else 0
        counts = range(options.expert_layers_on_cpu, most + 1)
        return self._first([replace(options, expert_layers_on_cpu=count) for count in counts])

    def _most_layers(self, options: GpuOptions) -> GpuOptions | None:
        return self._first([replace(options, layers=layers) for layers in range(options.layers or 0, 0, -1)])

    def _first(self, tried: Sequence[GpuOptions]) -> GpuOptions | None:
        """Return the first options that fit, if all after them fit too."""
        index = bisect_left(tried, True, key=lambda each: not self._problem(each))
        return tried[index] if index < len(tried) else None

    def _problem(self, options: GpuOptions) -> str:
        """Return what does not fit, with numbers; empty if everything fits."""
        estimate = self._estimate(self._with_shares(options))
        for number, (gpu, free) in enumerate(zip(estimate.gpus, self._free, strict=True)):
            if gpu.engine and gpu.total > free:
                return (
                    f"GPU {number} has {free // MIB} MiB of free memory and needs {gpu.total // MIB} MiB: weights "
                    f"{gpu.weights // MIB}, KV cache {gpu.kv_cache // MIB}, compute buffers {gpu.compute // MIB}, "
                    f"embeddings {gpu.embedding // MIB}, adapters {gpu.adapters // MIB}, "
                    f"projector {gpu.projector // MIB}, driver {gpu.fixed // MIB}"
                )
        return "" if estimate.gpus else "there is no GPU"

    def _fit(self, options: GpuOptions, reason: str) -> GpuFit:
        shared = self._with_shares(options)
        return GpuFit(shared, self._total, self._estimate(shared), reason)

    def _with_shares(self, options: GpuOptions) -> GpuOptions:
        """Add the layers of each GPU as its share, equal ones if they fit; none if nothing fits or shares are given."""
        if len(self._free) < 2 or options.shares or not options.layers:
            return options
        places = devices_of_layers(self._total - 1, len(self._free), options)
        gpus = self._estimate(options).gpus
        room = [free - gpu.total for free, gpu in zip(self._free, gpus, strict=True)]
        if all(size >= 0 or not gpu.engine for size, gpu in zip(room, gpus, strict=True)):
            return replace(options, shares=tuple(float(places.count(gpu)) for gpu in range(len(gpus))))
        sizes = LayerSplit(self._dims, len(self._free), options).layer_sizes(self._config)
        for place, size in zip(places, sizes, strict=True):
            if place is not None:
                room[place] += size
        return replace(options, shares=_fill(sizes[-options.layers :], room))

    def _estimate(self, options: GpuOptions) -> MemoryEstimate:
        gpus = len(self._free)
        return estimate_memory(self._dims, self._config, gpus=gpus, adapters=self._adapters, options=options)


def _fill(sizes: Sequence[int], room: Sequence[int]) -> tuple[float, ...]:
    """Put the layers in order into the rooms, each filled to about the same part. Empty if they do not fit."""
    steps = [[size * step // _STEPS for size in room] for step in range(1, _STEPS + 1)]
    index = bisect_left(steps, True, key=lambda each: sum(_counts(sizes, each)) == len(sizes))
    return tuple(float(count) for count in _counts(sizes, steps[index])) if index < _STEPS else ()


def _counts(sizes: Sequence[int], room: Sequence[int]) -> list[int]:
    """Return how many of the layers fit into each room, in order."""
    counts, start = [], 0
    for size in room:
        sums = list(accumulate(sizes[start:]))
        counts.append(bisect_right(sums, size))
        start += counts[-1]
    return counts
