"""Load configuration of a runner, shared by the runner and the memory estimate.

Precedence: what the operator passes by the placement (``CORRAL_CONTEXT_LENGTH``), the Model's spec, its parameters, the
installation's settings (Ollama's names).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from corral_core.base.settings import bool_setting, choice_setting, int_setting, str_setting
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import ModelSpec

DEFAULT_CONTEXT_LENGTH = 4096
AUTO_CONTEXTS = ((47 << 30, 262_144), (23 << 30, 32_768))
"""Bytes of all GPUs of a runner together, and the context length of ``contextLength: auto`` with so much memory.

As Ollama's defaults (``Serve`` in server/routes.go), which count the memory of all GPUs of the machine.
"""
DEFAULT_BATCH_SIZE = 512
"""Tokens; larger batches of an encoder are slower, because its attention covers the whole batch."""
AUTO_PARALLEL = (4, 1)
"""Values that ``parallel: auto`` tries, in this order."""
MAX_EMBEDDING_INPUTS = 64
"""Inputs (llama.cpp sequences) in one embedding batch."""
KV_CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
MIN_IMAGE_CONTEXT = 2048
"""Tokens of context that a model with a projector has at least, as in Ollama: an image takes several hundred."""
MAX_CONTEXT_LENGTH = 16_777_216
MAX_DRAFT_TOKENS = 16
POOLING_NONE, POOLING_LAST, POOLING_RANK = 0, 3, 4
"""Values of llama.cpp's ``enum llama_pooling_type``."""


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Requested configuration; 0 and a ``flash_attention`` of None mean automatic.

    ``context_length`` is in tokens per request. ``embeddings`` enables embeddings with a generative model.
    ``max_draft_tokens`` bounds the speculative tokens of a request per step.
    """

    context_length: int
    parallel: int
    batch_size: int
    kv_cache_type: str
    flash_attention: bool | None
    embeddings: bool = False
    max_draft_tokens: int = 0


@dataclass(frozen=True, slots=True)
class EmbeddingContext:
    """Size of the llama.cpp context for embeddings: ``cells`` of the KV cache, ``batch_size`` tokens per batch."""

    cells: int
    batch_size: int


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """Effective configuration. ``batch_size`` is the maximum of tokens per batch (llama.cpp's ``n_batch``).

    ``outputs_per_sequence`` is the number of tokens per sequence and batch that may be sampled from.
    ``context_passed``: the context length follows from the placement, and is passed to the runner.
    ``embedding`` is None without embeddings. A model that does not generate only embeds.
    """

    context_length: int
    parallel: int
    batch_size: int = DEFAULT_BATCH_SIZE
    kv_cache_type: str = "f16"
    flash_attention: bool | None = None
    outputs_per_sequence: int = 1
    generates: bool = True
    embedding: EmbeddingContext | None = None
    context_passed: bool = False


def load_request(spec: ModelSpec, environ: Mapping[str, str]) -> LoadRequest:
    """Combine the Model's spec with the settings. Raises InvalidSetting."""
    parameters = spec.parameters
    context, passed = (
        int_setting(environ, name, default=0, minimum=0, maximum=MAX_CONTEXT_LENGTH)
        for name in ("OLLAMA_CONTEXT_LENGTH", "CORRAL_CONTEXT_LENGTH")
    )
    parallel = int_setting(environ, "OLLAMA_NUM_PARALLEL", default=0, minimum=0, maximum=256)
    draft = int_setting(environ, "CORRAL_SPECULATION", default=0, minimum=0, maximum=MAX_DRAFT_TOKENS)
    return LoadRequest(
        context_length=passed
        or (spec.context_length if spec.context_length != "auto" else parameters.get("num_ctx", 0) or context),
        parallel=spec.parallel if spec.parallel != "auto" else parallel,
        batch_size=max(1, parameters.get("num_batch", DEFAULT_BATCH_SIZE)),
        kv_cache_type=spec.kv_cache_type
        or choice_setting(environ, "OLLAMA_KV_CACHE_TYPE", default="f16", choices=KV_CACHE_TYPES),
        flash_attention=_flash_attention(spec, environ),
        embeddings=spec.embeddings,
        max_draft_tokens=parameters.get("draft_num_predict", draft),
    )


def _flash_attention(spec: ModelSpec, environ: Mapping[str, str]) -> bool | None:
    """Return whether it is on, None if llama.cpp is to choose. Raises InvalidSetting."""
    if spec.flash_attention is not None:
        return None if spec.flash_attention == "auto" else spec.flash_attention == "enabled"
    if not str_setting(environ, "OLLAMA_FLASH_ATTENTION"):
        return None
    return bool_setting(environ, "OLLAMA_FLASH_ATTENTION", default=False)


def context_length(requested: int, trained: int) -> int:
    """Apply Ollama's rule: the requested length or 4096, at most the trained one, at least 4."""
    return max(4, min(requested or DEFAULT_CONTEXT_LENGTH, trained or requested or DEFAULT_CONTEXT_LENGTH))


def context_for_images(requested: int) -> int:
    """Return the requested context length of a model with a projector: at least Ollama's minimum; 0 is automatic."""
    return max(requested, MIN_IMAGE_CONTEXT) if requested else 0


def generation_batch_size(requested: int, context: int, *, parallel: int) -> int:
    """Limit the requested batch to all contexts together, with at least one token per sequence and step."""
    return max(parallel, min(requested, context * parallel))


def embedding_context(context: int, *, chunked: bool) -> EmbeddingContext:
    """Size the context for embedding inputs of up to ``context`` tokens.

    A ``chunked`` input is processed in several batches, between which its cells stay in the cache; any other input in
    one batch. llama.cpp aborts unless the number of sequences divides the batch.
    """
    batch = min(DEFAULT_BATCH_SIZE, context) if chunked else context
    batch = -(-batch // MAX_EMBEDDING_INPUTS) * MAX_EMBEDDING_INPUTS
    return EmbeddingContext(cells=context + batch if chunked else batch, batch_size=batch)


def supports_chunked_embedding(metadata: ModelMetadata) -> bool:
    """Whether an embedding model can process a long input in several batches.

    A causal model with last-token pooling can; a model whose tokens attend to all others cannot.
    """
    pooling = metadata.info.get(f"{metadata.family}.pooling_type")
    causal = metadata.info.get(f"{metadata.family}.attention.causal") is not False and "bert" not in metadata.family
    return causal and pooling in (POOLING_NONE, POOLING_LAST)


def load_configs(request: LoadRequest, metadata: ModelMetadata) -> tuple[LoadConfig, ...]:
    """List the configurations to try for these weights, best first."""
    has_projector = metadata.dimensions is not None and metadata.dimensions.projector
    requested = context_for_images(request.context_length) if has_projector else request.context_length
    context = context_length(requested, metadata.context_length)
    if "embedding" in metadata.capabilities:
        embedding = embedding_context(context, chunked=supports_chunked_embedding(metadata))
        return (LoadConfig(context, 1, generates=False, embedding=embedding),)
    return tuple(
        LoadConfig(
            context,
            parallel,
            generation_batch_size(request.batch_size, context, parallel=parallel),
            request.kv_cache_type,
            request.flash_attention,
            outputs_per_sequence=1 + request.max_draft_tokens,
            embedding=embedding_context(context, chunked=True) if request.embeddings else None,
        )
        for parallel in ((request.parallel,) if request.parallel else AUTO_PARALLEL)
    )


def longer_configs(request: LoadRequest, metadata: ModelMetadata) -> tuple[tuple[int, tuple[LoadConfig, ...]], ...]:
    """List what an automatic context length is with more GPU memory, the longest first.

    Each item has the bytes that all GPUs of the runner have at least, and the configurations of ``load_configs`` in
    their order. None exceeds the trained context length.
    """
    if request.context_length or not metadata.context_length:
        return ()
    default = context_length(0, metadata.context_length)
    lengths = {min(length, metadata.context_length): memory for memory, length in AUTO_CONTEXTS}
    return tuple(
        (memory, configs_with_context(request, metadata, length))
        for length, memory in lengths.items()
        if length > default
    )


def growth_lengths(spec: ModelSpec, metadata: ModelMetadata, length: int) -> tuple[int, ...]:
    """List the context lengths to which a runner with this one can grow, the shortest first.

    Each is twice the one before, so that clients with slowly rising demands cause few reloads.
    """
    limit = min(metadata.context_length, spec.max_context_length or metadata.context_length)
    found = []
    while spec.context_policy == "Grow" and length < limit:
        length = min(2 * length, limit)
        found.append(length)
    return tuple(found)


def configs_with_context(request: LoadRequest, metadata: ModelMetadata, length: int) -> tuple[LoadConfig, ...]:
    """List the configurations with this context length, which is passed to the runner."""
    configs = load_configs(replace(request, context_length=length), metadata)
    return tuple(replace(config, context_passed=True) for config in configs)
