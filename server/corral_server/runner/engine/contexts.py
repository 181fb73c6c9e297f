"""Engine options and the llama.cpp contexts that follow from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from corral_core.weights.load_config import AUTO_PARALLEL, DEFAULT_BATCH_SIZE, KV_CACHE_TYPES, generation_batch_size
from corral_server.runner.engine.embedding import EmbeddingOptions, context_options
from corral_server.runner.llama.context import ContextOptions, LlamaContext
from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.model import LlamaModel
from corral_server.system.cores import available_cores

log = logging.getLogger("corral.runner.engine")


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA adapter's file and the scale that it is applied with."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class GPUOptions:
    """Where the model goes. ``count`` GPUs are expected, None means all that there are; 0 is the CPU.

    ``offload``: with full the load is refused if not all layers fit, with auto those that fit are on GPUs. ``layers``
    is the maximum, -1 all. The other fields are those of ``Placement``. ``reserved`` bytes of each GPU stay free.
    ``projector`` is what the projector takes of the first GPU, in bytes.
    """

    count: int | None = 0
    offload: Literal["full", "auto"] = "auto"
    layers: int = -1
    split_mode: str = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    expert_layers_on_cpu: int = 0
    reserved: int = 0
    projector: int = 0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Settings of an engine; 0 means automatic. ``context_length`` is per slot, at most the model's own.

    Each slot has cells of its own for its whole context, so an idle slot has room for any prompt, and a running
    generation never waits for cells. With one buffer for all slots (llama.cpp's ``kv_unified``) a slot's attention
    covers the cells of the others: measured on a CPU with 2000 tokens in each of four slots, prefill was a fifth slower
    and a single stream a quarter slower.

    Without ``embedding`` no embeddings are computed. ``draft_tokens`` of a stream at most are decoded speculatively
    (``speculation.py``). ``adapters`` are keyed by the names in requests; the one named ``""`` applies to all others.
    ``lock_weights`` keeps the weights in memory (``mlock``) where the system allows it; ``warm_up`` decodes once before
    the first request, which reads weights that are only mapped. ``projector`` encodes images; without one they are
    refused.
    """

    context_length: int = 0
    slots: int = 0
    threads: int = 0
    batch_size: int = DEFAULT_BATCH_SIZE
    draft_tokens: int = 0
    lock_weights: bool = False
    warm_up: bool = False
    gpu: GPUOptions = GPUOptions()
    cache_type: str = "f16"
    flash_attention: bool | None = None
    embedding: EmbeddingOptions | None = None
    adapters: Mapping[str, AdapterFile] = field(default_factory=dict)
    projector: Path | None = None


def make_context(model: LlamaModel, options: EngineOptions, length: int) -> tuple[LlamaContext, int]:
    """Return the context and its number of slots; ``parallel: auto`` tries four slots, then one.

    An embedding model gets its embedding context, whose size does not depend on the slots. Raises LoadFailed.
    """
    if options.embedding is not None and options.embedding.embedding_only:
        return make_embedding_context(model, options, length), options.slots or AUTO_PARALLEL[0]
    if options.cache_type not in KV_CACHE_TYPES:
        raise LoadFailed(f"KV cache type {options.cache_type!r} is not one of {', '.join(KV_CACHE_TYPES)}")
    choices = (options.slots,) if options.slots else AUTO_PARALLEL
    for slots in choices:
        try:
            return LlamaContext(model, _context_options(options, length, slots)), slots
        except LoadFailed as error:
            if slots == choices[-1]:
                raise
            log.warning("%d slots do not fit (%s); trying fewer", slots, error)
    raise AssertionError("the last choice returns or raises")


def planned_contexts(options: EngineOptions, length: int, slots: int) -> list[ContextOptions]:
    """Return the options of all contexts that the engine makes, those for embeddings included."""
    embedding = options.embedding
    planned = []
    if embedding is None or not embedding.embedding_only:
        planned.append(_context_options(options, length, slots))
    if embedding is not None:
        planned.append(context_options(embedding, length, threads=options.threads or available_cores()))
    return planned


def make_embedding_context(model: LlamaModel, options: EngineOptions, length: int) -> LlamaContext:
    """Return the context for the inputs of embedding requests. Raises LoadFailed."""
    threads = options.threads or available_cores()
    return LlamaContext(model, context_options(options.embedding or EmbeddingOptions(), length, threads=threads))


def _context_options(options: EngineOptions, length: int, slots: int) -> ContextOptions:
    return ContextOptions(
        length=length,
        sequences=slots,
        batch_size=generation_batch_size(options.batch_size, length, parallel=slots),
        threads=options.threads or available_cores(),
        outputs_per_sequence=1 + options.draft_tokens,
        flash_attention=options.flash_attention,
        cache_type=options.cache_type,
    )
