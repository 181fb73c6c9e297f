"""Memory check before a load: weights that exceed the container's limit are refused; the kernel would kill the process.

Invariants:

- without a limit no load is refused;
- a load that could succeed is never refused: only the minimum memory of a load is compared with the limit;
- with layers on GPUs nothing is compared here: ``engine/loading/offload.py`` compares the memory of the GPUs.
"""

from __future__ import annotations

from dataclasses import replace

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.weights.load_config import LoadRequest, load_configs
from corral_core.weights.memory_estimate import MIB, MemoryEstimate, estimate_memory
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.llama.errors import LoadFailed
from corral_server.system.cgroup_memory import ContainerMemory


def fit_options(
    options: EngineOptions, metadata: ModelMetadata, *, memory: ContainerMemory | None, on_gpus: bool = False
) -> EngineOptions:
    """Return the options with as many slots as fit, unless they set the number. Raises LoadFailed with the figures."""
    if memory is None or metadata.dimensions is None or on_gpus:
        return options
    estimate = None
    for config in load_configs(_load_request(options), metadata):
        estimate = estimate_memory(metadata.dimensions, config, adapters=metadata.adapters_size)
        if estimate.engine + estimate.requests <= memory.free:
            return replace(options, slots=config.parallel) if config.generates else options
    if estimate is not None and _minimum_memory(estimate) > memory.free:
        raise LoadFailed(
            f"the model does not fit in the container's memory: it needs {estimate}, but only "
            f"{memory.free // MIB} MiB of the limit of {memory.limit // MIB} MiB is free"
        )
    return replace(options, slots=options.slots or 1)


def _load_request(options: EngineOptions) -> LoadRequest:
    return LoadRequest(
        options.context_length,
        options.slots,
        options.batch_size,
        options.cache_type,
        options.flash_attention,
        embeddings=options.embedding is not None,
        max_draft_tokens=options.draft_tokens,
    )


def _minimum_memory(estimate: MemoryEstimate) -> int:
    """Return weights, adapters and KV cache, which are known, and half of the compute buffers, estimated high."""
    return estimate.weights + estimate.adapters + estimate.kv_cache + (estimate.compute + estimate.embedding) // 2
