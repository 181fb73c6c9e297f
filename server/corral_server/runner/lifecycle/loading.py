"""Loading of a Model: locate the weights, check their digest, read their metadata, load them into the engine.

It blocks for seconds or minutes and runs in a worker thread. Errors in the weights have a text for the user and are
raised before llama.cpp opens the file where that is possible.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import ModelSpec
from corral_core.sources.locate import WeightsRoots, locate_weights, weight_parts
from corral_core.sources.uri import parse_source
from corral_core.weights.files import FoundProjector, find_projector, read_model_metadata
from corral_core.weights.load_config import (
    POOLING_LAST,
    POOLING_NONE,
    context_for_images,
    supports_chunked_embedding,
)
from corral_core.weights.template_capabilities import with_template
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.options import GenerationOptions
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.embedding import EmbeddingOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.loading.phases import LoadPhases
from corral_server.runner.lifecycle.adapters import adapter_files
from corral_server.runner.lifecycle.memory_check import fit_options
from corral_server.runner.llama.errors import LoadFailed
from corral_server.runner.llama.library import supports_gpu_offload
from corral_server.runner.llama.projector import mtmd
from corral_server.runner.templates.templates import CONTENT_ONLY, ChatTemplate
from corral_server.system.cgroup_memory import container_memory
from corral_server.system.digests import check_digest

log = logging.getLogger("corral.runner.loading")


def load_model(
    spec: ModelSpec,
    options: EngineOptions,
    *,
    roots: WeightsRoots,
    progress: Callable[[float], bool],
    phases: LoadPhases | None = None,
) -> LoadedModel:
    """Load the weights and adapters of a Model into an engine.

    ``spec`` has the defaults of its source. ``progress`` is called with a value from 0 to 1 and aborts the load by
    returning False. ``phases`` gets the duration of each phase. Raises SourceError, GGUFError, LoadFailed and OSError.
    """
    phases = phases or LoadPhases()
    path = locate_weights(parse_source(spec.source), roots)
    weights = read_model_metadata(spec, roots)
    metadata = with_template(weights, spec.template)
    phases.end("header")
    load_start = 0.0
    if spec.sha256 is not None:
        check_digest(weight_parts(path), spec.sha256, progress=lambda share: progress(share / 2))
        load_start = 0.5
        phases.end("digest")
    adapters = adapter_files(spec, roots)
    options = replace(options, embedding=embedding_options(metadata, spec.embeddings), adapters=adapters)
    projector = _loadable_projector(spec, roots)
    if projector is not None:
        context = context_for_images(options.context_length)
        size = projector.metadata.weights + projector.metadata.compute
        gpu = replace(options.gpu, projector=size)
        options = replace(options, projector=projector.path, context_length=context, gpu=gpu)
    options = fit_options(options, metadata, memory=container_memory(), on_gpus=uses_gpus(options))
    engine = LlamaEngine.load(
        path,
        options,
        progress=lambda share: progress(load_start + share * (1 - load_start)),
        phases=phases,
    )
    template = ChatTemplate(metadata.template or CONTENT_ONLY, bos=engine.bos_text, eos=engine.eos_text)
    defaults = replace(GenerationOptions().merged(dict(spec.parameters)), num_ctx=0)  # the engine has it already
    return LoadedModel(
        engine, metadata, template, defaults, spec.system or "", frozenset(filter(None, adapters)), weights, path
    )


def _loadable_projector(spec: ModelSpec, roots: WeightsRoots) -> FoundProjector | None:
    """Return the projector, None without one.

    Where llama.cpp was built without its library for images, a projector that the source brings is left out, and one of
    the spec raises LoadFailed. Raises as ``find_projector``.
    """
    projector = find_projector(spec, roots)
    if projector is None:
        return None
    try:
        mtmd()
    except LoadFailed as error:
        if spec.projector is not None:
            raise
        log.warning("the model answers text only: %s", error)
        return None
    return projector


def uses_gpus(options: EngineOptions) -> bool:
    """Whether GPUs hold a part of the model: they are asked for, and llama.cpp finds one."""
    return options.gpu.count != 0 and options.gpu.layers != 0 and supports_gpu_offload()


def embedding_options(metadata: ModelMetadata, enabled: bool) -> EmbeddingOptions | None:
    """Return how the model embeds, None if it does not.

    An embedding model pools as its metadata says. ``enabled`` is the spec's ``embeddings``, which turns embeddings on
    for a generating model; that model pools by the last token.
    """
    if "embedding" not in metadata.capabilities:
        return EmbeddingOptions(pooling=POOLING_LAST, chunked=True) if enabled else None
    pooling = metadata.info.get(f"{metadata.family}.pooling_type")
    if pooling in (POOLING_NONE, POOLING_LAST):
        return EmbeddingOptions(pooling=POOLING_LAST, chunked=supports_chunked_embedding(metadata), embedding_only=True)
    return EmbeddingOptions(embedding_only=True)
