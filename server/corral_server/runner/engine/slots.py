"""Slots and the generations that run in them.

Invariants:

- between steps ``Slot.tokens`` are exactly the tokens whose keys and values llama.cpp holds for the slot's sequence, at
  positions 0 to ``len(tokens) - 1``;
- ``Generation.pending_tokens`` are the tokens that are still to be decoded after them. A generation with one pending
  token is a running stream, one with more is in prefill; the batch needs no other state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from corral_server.runner.engine.generation import GenerationResult, GenerationTask
from corral_server.runner.engine.prepared_image import PromptImages, text_length
from corral_server.runner.engine.prompt_lookup import PromptLookup
from corral_server.runner.engine.stream import GenerationStream
from corral_server.runner.sampling.sampler import TokenSampler
from corral_server.runner.sampling.text import TextAssembler, TextChunk

if TYPE_CHECKING:
    from corral_server.runner.sampling.logprobs import ScoredTextAssembler  # imports numpy


@dataclass(eq=False, slots=True)
class Generation:
    """One request from the queue to its result. Times are ``perf_counter_ns``."""

    task: GenerationTask
    stream: GenerationStream
    sampler: TokenSampler
    prompt: tuple[int, ...]
    keep: int
    """Tokens at the start that a context shift keeps."""
    max_tokens: int
    context_length: int
    """Tokens, at most the context of a slot."""
    text: TextAssembler
    scored_text: ScoredTextAssembler | None = None
    """Replaces ``text`` in a request with logprobs."""
    images: PromptImages | None = None
    pending_tokens: list[int] = field(default_factory=list)
    prefix_source: PrefixSource | None = None
    """The slot whose cells the start of the prompt is copied from; until then the generation waits."""
    draft_tokens: list[int] = field(default_factory=list)
    """Expected tokens after the pending one, decoded in the same batch."""
    lookup: PromptLookup | None = None
    cached_tokens: int = 0
    generated_tokens: list[int] = field(default_factory=list)
    started_ns: int = 0
    first_token_ns: int = 0

    def start(self, cached_tokens: int) -> None:
        """Begin in a slot that holds the first ``cached_tokens`` of the prompt."""
        self.started_ns = time.perf_counter_ns()
        self.use_cached_prefix(cached_tokens)

    def use_cached_prefix(self, cached_tokens: int) -> None:
        """Compute only the part of the prompt that follows the tokens in the slot."""
        self.cached_tokens = cached_tokens
        self.pending_tokens = list(self.prompt[cached_tokens:])
        self.prefix_source = None
        if self.images is not None:
            self.images.rows_done = 0

    @property
    def pending_text(self) -> int:
        """Number of the pending tokens before the next image."""
        return len(self.pending_tokens) if self.images is None else text_length(self.pending_tokens)

    @property
    def extra_cells(self) -> int:
        """Cells of the KV cache that the prompt's images take beyond their positions."""
        return self.images.extra_cells if self.images is not None else 0

    @property
    def is_over_time(self) -> bool:
        """Whether it is longer in its slot than its task allows."""
        limit = self.task.max_seconds
        return limit > 0 and time.perf_counter_ns() - self.started_ns >= limit * 1e9

    @property
    def _extra_cached(self) -> int:
        return 0 if self.images is None else self.images.extra_cells_in(self.prompt[: self.cached_tokens])

    def append(self, token: int) -> None:
        """Add a sampled token, which is decoded in the next step."""
        if not self.generated_tokens:
            self.first_token_ns = time.perf_counter_ns()
        self.generated_tokens.append(token)
        self.pending_tokens = [token]
        if self.lookup is not None:
            self.lookup.extend((token,))

    def next_chunk(self, token_bytes: bytes, logits: Callable[[], memoryview]) -> TextChunk | None:
        """Return the text that the newest token completes; ``logits`` are those that it was sampled from."""
        if self.scored_text is not None:
            return self.scored_text.push(token_bytes, self.generated_tokens[-1], logits=logits())
        text = self.text.push(token_bytes)
        return TextChunk(text) if text else None

    def last_chunk(self) -> TextChunk | None:
        """Return the text that was held back, at the end of the generation."""
        if self.scored_text is not None:
            return self.scored_text.flush()
        text = self.text.flush()
        return TextChunk(text) if text else None

    def result(self, reason: Literal["stop", "length"]) -> GenerationResult:
        now = time.perf_counter_ns()
        first = self.first_token_ns or now
        return GenerationResult(
            reason=reason,
            prompt_tokens=len(self.prompt) + self.extra_cells,
            cached_tokens=self.cached_tokens + self._extra_cached,
            tokens=tuple(self.generated_tokens),
            prefill_ns=first - self.started_ns,
            decode_ns=now - first,
            stop_string=self.text.stop_string,
        )


@dataclass(eq=False, slots=True)
class Slot:
    """Room for one of llama.cpp's sequences."""

    sequence: int
    tokens: list[int] = field(default_factory=list)
    generation: Generation | None = None
    last_used: int = 0
    """Number of its last assignment to a generation; the least recently used slot loses its cells first."""
    adapter: str = ""
    """The adapter that the cells were computed with; they are invalid for any other."""
    shifted_from: int | None = None
    """Cells from this position on were moved by a context shift. They were computed after tokens that are gone, so no
    prompt may reuse them, even one with the same tokens."""

    @property
    def reusable_tokens(self) -> list[int]:
        """The tokens whose cells are equal to those that a prompt of these tokens would compute."""
        return self.tokens if self.shifted_from is None else self.tokens[: self.shifted_from]

    def set_tokens(self, tokens: list[int]) -> None:
        """Record cells that were computed from the beginning, in place of the earlier ones."""
        self.tokens, self.shifted_from = tokens, None

    def shared_prefix(self, prompt: Sequence[int], adapter: str) -> int:
        """Return how many tokens at the start of a prompt for ``adapter`` the slot holds."""
        return common_prefix(self.reusable_tokens, prompt) if self.adapter == adapter else 0


@dataclass(frozen=True, slots=True)
class PrefixSource:
    """A slot that holds, or will hold, the first ``length`` tokens of a prompt; ``owner`` is computing them there.

    The slot may go to another generation while a prompt waits, so the tokens and the ``adapter`` are compared again.
    """

    slot: Slot
    length: int
    owner: Generation | None
    adapter: str

    def is_ready(self, prompt: Sequence[int]) -> bool:
        """Whether the slot holds the start of the prompt, computed with the adapter."""
        if self.slot.adapter != self.adapter:
            return False
        tokens = self.slot.reusable_tokens
        return len(tokens) >= self.length and tuple(tokens[: self.length]) == tuple(prompt[: self.length])

    @property
    def is_pending(self) -> bool:
        """Whether the owner will compute it; false when the owner ended or its context was shifted."""
        if self.owner is None or self.slot.generation is not self.owner:
            return False
        held = len(self.slot.tokens)
        return held < self.length <= held + len(self.owner.pending_tokens)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the length of the common beginning; compares slices, because prompts are long and mostly equal."""
    low, high = 0, min(len(left), len(right))
    if list(left[:high]) == list(right[:high]):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if list(left[low:middle]) == list(right[low:middle]):
            low = middle
        else:
            high = middle
    return low
