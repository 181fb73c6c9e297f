"""Samplers and scorers of requests; those that take long are made outside of the event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.engine.prepared_image import text_tokens
from corral_server.runner.isolation.threads import run_at_low_priority
from corral_server.runner.llama.model import LlamaModel
from corral_server.runner.sampling.grammar_compiler import GrammarCompiler
from corral_server.runner.sampling.sampler import TokenSampler, is_slow_to_make, make_sampler
from corral_server.runner.sampling.text import TextAssembler

if TYPE_CHECKING:
    from corral_server.runner.sampling.logprobs import ScoredTextAssembler  # imports numpy


async def sampler_of(
    task: GenerationTask, model: LlamaModel, *, context_length: int, grammars: GrammarCompiler
) -> TokenSampler:
    """Make the sampler, in a thread when that may take long; free it when the request is cancelled meanwhile."""
    make = partial(
        make_sampler,
        model,
        task.sampling,
        prompt=text_tokens(task.prompt) if task.images else task.prompt,
        grammar=task.grammar,
        context_length=context_length,
        grammars=grammars,
    )
    if not is_slow_to_make(task.sampling, task.grammar, vocab_size=model.vocab_size):
        return make()
    is_quick = task.grammar is None or task.grammar.is_simple
    pending = asyncio.ensure_future(asyncio.to_thread(make) if is_quick else run_at_low_priority(make))
    try:
        return await asyncio.shield(pending)
    except asyncio.CancelledError:
        pending.add_done_callback(_close_unused)
        raise


async def scored_text_of(task: GenerationTask, model: LlamaModel, *, text: TextAssembler) -> ScoredTextAssembler:
    """Make what adds logprobs to the text."""
    return await asyncio.to_thread(_scored_text, task, model, text=text)


def _scored_text(task: GenerationTask, model: LlamaModel, *, text: TextAssembler) -> ScoredTextAssembler:
    """Imported late and outside of the event loop: most runners serve no request with logprobs."""
    from corral_server.runner.sampling.logprobs import LogprobScorer, ScoredTextAssembler

    return ScoredTextAssembler(text, LogprobScorer(partial(model.token_bytes, special=True), task.top_logprobs))


def _close_unused(pending: asyncio.Future[TokenSampler]) -> None:
    if not pending.cancelled() and pending.exception() is None:
        pending.result().close()
