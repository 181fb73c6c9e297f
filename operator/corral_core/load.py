"""How a runner is to load its model: the one rule for the runner that does it and for who counts its memory before.

The Model's own word goes first, then its parameters', then the installation's settings (Ollama's names).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral_core.model import ModelSpec
from corral_core.settings import bool_setting, choice_setting, int_setting, text_setting

DEFAULT_CONTEXT = 4096
DEFAULT_BATCH = 512
AUTO_PARALLEL = (4, 1)
"""What ``parallel: auto`` tries, in this order."""
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
MAX_CONTEXT = 16_777_216


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for; 0 is automatic, as is ``flash_attention`` None. ``context`` is in tokens for one request."""

    context: int
    parallel: int
    batch: int
    cache_type: str
    flash_attention: bool | None


@dataclass(frozen=True, slots=True)
class Load:
    """What is done; ``batch`` is the most tokens that are computed together."""

    context: int
    parallel: int
    batch: int = DEFAULT_BATCH
    cache_type: str = "f16"
    flash_attention: bool | None = None


def wish(spec: ModelSpec, environ: Mapping[str, str]) -> Wish:
    """Raises InvalidSetting."""
    parameters = spec.parameters
    context = int_setting(environ, "OLLAMA_CONTEXT_LENGTH", default=0, minimum=0, maximum=MAX_CONTEXT)
    parallel = int_setting(environ, "OLLAMA_NUM_PARALLEL", default=0, minimum=0, maximum=256)
    attention = text_setting(environ, "OLLAMA_FLASH_ATTENTION")
    return Wish(
        context=spec.context_length if spec.context_length != "auto" else parameters.get("num_ctx", 0) or context,
        parallel=spec.parallel if spec.parallel != "auto" else parallel,
        batch=max(1, parameters.get("num_batch", DEFAULT_BATCH)),
        cache_type=choice_setting(environ, "OLLAMA_KV_CACHE_TYPE", default="f16", choices=CACHE_TYPES),
        flash_attention=bool_setting(environ, "OLLAMA_FLASH_ATTENTION", default=False) if attention else None,
    )


def context_length(wanted: int, trained: int) -> int:
    """Ollama's rule: what is asked for or 4096, never more than the model was trained for, never less than 4."""
    return max(4, min(wanted or DEFAULT_CONTEXT, trained or wanted or DEFAULT_CONTEXT))


def loads(wanted: Wish, trained: int) -> tuple[Load, ...]:
    """The ways to load that are tried, the best first. ``trained`` is the model's own context length."""
    context = context_length(wanted.context, trained)
    return tuple(
        Load(context, parallel, min(wanted.batch, context * parallel), wanted.cache_type, wanted.flash_attention)
        for parallel in ((wanted.parallel,) if wanted.parallel else AUTO_PARALLEL)
    )
