"""Whether the weights fit the container's memory, asked before they are loaded: the kernel would kill the process.

What always holds: without a limit nothing is refused, and nothing is that could work: only what a load cannot do
without is held against the limit. With GPUs nothing is held against it at all.
"""

from __future__ import annotations

from dataclasses import replace

from corral_core.estimate import MIB, Estimate, estimate
from corral_core.facts import ModelFacts
from corral_core.load import Wish, loads
from corral_server.runner.cgroup_memory import HostMemory
from corral_server.runner.contexts import EngineOptions
from corral_server.runner.generation import LoadFailed


def fitted(options: EngineOptions, facts: ModelFacts, *, memory: HostMemory | None) -> EngineOptions:
    """The options with as many slots as fit, where that is left open. Raises LoadFailed with the numbers."""
    if memory is None or facts.shape is None or options.gpu_layers:
        return options
    made = None
    for way in loads(_wish(options), facts):
        made = estimate(facts.shape, way, adapters=facts.adapters_size)
        if made.engine <= memory.free:
            return replace(options, slots=way.parallel) if way.generates else options
    if made is not None and _least(made) > memory.free:
        raise LoadFailed(
            f"the model does not fit the container's memory: it needs {made}; of the limit of "
            f"{memory.limit // MIB} MiB {memory.free // MIB} MiB are free"
        )
    return replace(options, slots=options.slots or 1)


def _wish(options: EngineOptions) -> Wish:
    embeddings = options.embedding is not None
    return Wish(
        options.context_length,
        options.slots,
        options.batch,
        options.cache_type,
        options.flash_attention,
        embeddings=embeddings,
        draft=options.draft,
    )


def _least(made: Estimate) -> int:
    """Weights, adapters and KV cache are known; what computing takes is estimated high."""
    return made.weights + made.adapters + made.kv + (made.graph + made.embedding) // 2
