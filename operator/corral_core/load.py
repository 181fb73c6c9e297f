"""How a runner is to load its model: the one rule for the runner that does it and for who counts its memory before.

The Model's own word goes first, then its parameters', then the installation's settings (Ollama's names).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral_core.facts import ModelFacts
from corral_core.model import ModelSpec
from corral_core.settings import bool_setting, choice_setting, int_setting, text_setting

DEFAULT_CONTEXT = 4096
DEFAULT_BATCH = 512
AUTO_PARALLEL = (4, 1)
"""What ``parallel: auto`` tries, in this order."""
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
MAX_CONTEXT = 16_777_216
MAX_DRAFT = 16
POOLING_NONE, POOLING_LAST = 0, 3
"""llama.cpp's numbers of how the vectors of tokens become one."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for; 0 is automatic, as is ``flash_attention`` None. ``context`` is in tokens for one request.

    ``embeddings``: what generates is to embed too. ``draft`` tokens of a request at most are decoded on speculation.
    """

    context: int
    parallel: int
    batch: int
    cache_type: str
    flash_attention: bool | None
    embeddings: bool = False
    draft: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """What is done; ``batch`` is the most tokens that are computed together.

    Of each request ``outputs`` tokens of a batch may be sampled from. ``embedding`` is how many tokens of its input an
    embedding is computed from together, 0 where nothing is embedded; what does not generate does nothing else.
    """

    context: int
    parallel: int
    batch: int = DEFAULT_BATCH
    cache_type: str = "f16"
    flash_attention: bool | None = None
    outputs: int = 1
    generates: bool = True
    embedding: int = 0


def wish(spec: ModelSpec, environ: Mapping[str, str]) -> Wish:
    """Raises InvalidSetting."""
    parameters = spec.parameters
    context = int_setting(environ, "OLLAMA_CONTEXT_LENGTH", default=0, minimum=0, maximum=MAX_CONTEXT)
    parallel = int_setting(environ, "OLLAMA_NUM_PARALLEL", default=0, minimum=0, maximum=256)
    draft = int_setting(environ, "CORRAL_SPECULATION", default=0, minimum=0, maximum=MAX_DRAFT)
    attention = text_setting(environ, "OLLAMA_FLASH_ATTENTION")
    return Wish(
        context=spec.context_length if spec.context_length != "auto" else parameters.get("num_ctx", 0) or context,
        parallel=spec.parallel if spec.parallel != "auto" else parallel,
        batch=max(1, parameters.get("num_batch", DEFAULT_BATCH)),
        cache_type=choice_setting(environ, "OLLAMA_KV_CACHE_TYPE", default="f16", choices=CACHE_TYPES),
        flash_attention=bool_setting(environ, "OLLAMA_FLASH_ATTENTION", default=False) if attention else None,
        embeddings=spec.embeddings,
        draft=parameters.get("draft_num_predict", draft),
    )


def context_length(wanted: int, trained: int) -> int:
    """Ollama's rule: what is asked for or 4096, never more than the model was trained for, never less than 4."""
    return max(4, min(wanted or DEFAULT_CONTEXT, trained or wanted or DEFAULT_CONTEXT))


def reads_in_pieces(facts: ModelFacts) -> bool:
    """Whether a model that is made for embeddings may read a long input in several batches.

    A causal model that embeds by the last token may; where every token attends to all others it cannot.
    """
    pooling = facts.info.get(f"{facts.family}.pooling_type")
    causal = facts.info.get(f"{facts.family}.attention.causal") is not False and "bert" not in facts.family
    return causal and pooling in (POOLING_NONE, POOLING_LAST)


def loads(wanted: Wish, facts: ModelFacts) -> tuple[Load, ...]:
    """The ways to load such weights that are tried, the best first."""
    context = context_length(wanted.context, facts.context_length)
    piece = min(DEFAULT_BATCH, context)
    if "embedding" in facts.capabilities:
        return (Load(context, 1, generates=False, embedding=piece if reads_in_pieces(facts) else context),)
    return tuple(
        Load(
            context,
            parallel,
            max(parallel, min(wanted.batch, context * parallel)),  # each stream has a token in every step
            wanted.cache_type,
            wanted.flash_attention,
            outputs=1 + wanted.draft,
            embedding=piece if wanted.embeddings else 0,
        )
        for parallel in ((wanted.parallel,) if wanted.parallel else AUTO_PARALLEL)
    )
