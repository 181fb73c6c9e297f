"""From the Model's source to a loaded engine: find the weights, check them, read their facts, load them.

Blocks for seconds or minutes and is run in a thread. Everything that can be wrong with the weights is an error whose
text is meant for a person, raised before llama.cpp sees the file where that is possible.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from corral_core.facts import ModelFacts
from corral_core.load import POOLING_LAST, POOLING_NONE, reads_in_pieces
from corral_core.source import locate, parse_source
from corral_core.template_facts import with_template
from corral_core.weights import read_model
from corral_server.runner.adapters import adapter_files
from corral_server.runner.cgroup_memory import host_memory
from corral_server.runner.config import RunnerConfig
from corral_server.runner.digests import check_digest
from corral_server.runner.embedding import EmbeddingOptions
from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.host_memory import fitted
from corral_server.runner.llama_library import gpus_found
from corral_server.runner.options import Options
from corral_server.runner.state import Loaded
from corral_server.runner.templates import PLAIN, ChatTemplate

log = logging.getLogger("corral.runner.loading")


def load(config: RunnerConfig, progress: Callable[[float], bool]) -> Loaded:
    """``progress`` gets 0 to 1 and aborts by returning False. Raises SourceError, GGUFError, LoadFailed, OSError."""
    spec = config.model.spec
    path = locate(parse_source(spec.source), config.pvc_root)
    weights = read_model(spec, config.pvc_root)
    facts = with_template(weights, spec.template)
    begun = 0.0
    if spec.sha256 is not None:
        check_digest(path, spec.sha256, progress=lambda share: progress(share / 2))
        begun = 0.5
    adapters = adapter_files(spec, config.pvc_root)
    options = replace(config.engine, embedding=embedding_of(facts, spec.embeddings), adapters=adapters)
    options = fitted(on_what_is_here(options, gpus=gpus_found()), facts, memory=host_memory())
    engine = LlamaEngine.load(path, options, progress=lambda share: progress(begun + share * (1 - begun)))
    template = ChatTemplate(facts.template or PLAIN, bos=engine.bos_text, eos=engine.eos_text)
    own = Options().updated(dict(spec.parameters))
    return Loaded(engine, facts, template, own, spec.system or "", frozenset(adapters), weights, path)


def on_what_is_here(options: EngineOptions, *, gpus: bool) -> EngineOptions:
    """Without any GPU a Model that asks for some runs on the CPU, within its container's memory, and this is said."""
    if not options.gpu_layers or gpus:
        return options
    log.warning("the Model asks for GPUs and llama.cpp finds none here: it runs on the CPU")
    return replace(options, gpu_layers=0)


def embedding_of(facts: ModelFacts, wanted: bool) -> EmbeddingOptions | None:
    """How the model embeds: one made for it as its weights say, another by its last token where that is ``wanted``."""
    if "embedding" not in facts.capabilities:
        return EmbeddingOptions(pooling=POOLING_LAST, pieces=True) if wanted else None
    pooling = facts.info.get(f"{facts.family}.pooling_type")
    if pooling in (POOLING_NONE, POOLING_LAST):
        return EmbeddingOptions(pooling=POOLING_LAST, pieces=reads_in_pieces(facts), only=True)
    return EmbeddingOptions(only=True)
