"""What an engine is started with, and the contexts that follow from it: their size, and how many slots fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corral_server.runner.embedding import EmbeddingOptions, context_options
from corral_server.runner.generation import LoadFailed
from corral_server.runner.llama import ContextOptions, LlamaContext, LlamaModel
from corral_server.runner.threads import available_cores

log = logging.getLogger("corral.runner.engine")

DEFAULT_CONTEXT = 4096
AUTO_SLOTS = (4, 1)
_CACHE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """A LoRA adapter and how much of it is applied."""

    path: Path
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a runner may set; 0 means automatic. ``context_length`` is for one slot and is held to the model's own.

    Each slot has cells of its own for its whole window, so a free slot is room for any prompt, and nothing that was
    begun ever waits for cells. In one buffer for all slots a slot's attention would pass over the cells of others:
    measured on a CPU with 2000 tokens in each of four slots, prompts were read a fifth slower and a single stream was a
    quarter slower. Without ``embedding`` no embeddings are
    made. ``draft`` tokens of a stream at most are decoded on speculation (``speculation.py``). ``adapters`` are by
    the names that tasks have. ``lock`` keeps the weights in memory whatever else needs it, where the system allows
    that; ``warm_up`` decodes once before the first request, which reads weights that are only mapped.
    """

    context_length: int = 0
    slots: int = 0
    threads: int = 0
    batch: int = 512
    draft: int = 0
    lock: bool = False
    warm_up: bool = False
    gpu_layers: int = -1
    cache_type: str = "f16"
    flash_attention: bool | None = None
    embedding: EmbeddingOptions | None = None
    adapters: Mapping[str, AdapterFile] = field(default_factory=dict)


DEFAULTS = EngineOptions()


def context_length(wanted: int, trained: int) -> int:
    """Ollama's rule: what is asked for or 4096, never more than the model was trained for, never less than 4."""
    return max(4, min(wanted or DEFAULT_CONTEXT, trained or wanted or DEFAULT_CONTEXT))


def make_context(model: LlamaModel, options: EngineOptions, length: int) -> tuple[LlamaContext, int]:
    """``parallel: auto`` tries four slots and then one; what only embeds needs one context of no slots' size.

    Raises LoadFailed.
    """
    if options.embedding is not None and options.embedding.only:
        return model.context(embedding_context(options, length)), options.slots or AUTO_SLOTS[0]
    if options.cache_type not in _CACHE_TYPES:
        raise LoadFailed(f"KV cache type {options.cache_type!r} is not one of {', '.join(_CACHE_TYPES)}")
    attention = -1 if options.flash_attention is None else int(options.flash_attention)
    choices = (options.slots,) if options.slots else AUTO_SLOTS
    for slots in choices:
        wanted = ContextOptions(
            length=length,
            sequences=slots,
            batch=max(slots, min(options.batch, length * slots)),  # each stream has a token in every step
            threads=options.threads or available_cores(),
            outputs=1 + options.draft,
            flash_attention=attention,
            cache_type=_CACHE_TYPES[options.cache_type],
        )
        try:
            return model.context(wanted), slots
        except LoadFailed as error:
            if slots == choices[-1]:
                raise
            log.warning("%d slots do not fit (%s); trying fewer", slots, error)
    raise AssertionError("there is always a last choice")


def embedding_context(options: EngineOptions, length: int) -> ContextOptions:
    """For the inputs of embedding requests."""
    return context_options(
        options.embedding or EmbeddingOptions(), length, threads=options.threads or available_cores()
    )
