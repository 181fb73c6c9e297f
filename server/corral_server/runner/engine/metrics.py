"""Counters of the engine's own work: tokens, time and batch sizes.

Only the engine's thread writes them. A reader in another thread sees each number at its current value; the numbers of
one reading may belong to different steps.
"""

from __future__ import annotations

from collections import Counter

from corral_core.base.metrics import Histogram

FINISH_REASONS = ("stop", "length", "failed", "cancelled")
"""Each is exported as 0 from the start, so that its first increase is visible."""
SEQUENCE_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
TOKEN_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class EngineMetrics:
    """Totals since the model was loaded.

    A step that computes prompt tokens counts as prefill, any other as decode. ``decode_tokens`` are the tokens
    generated in decode steps, so ``decode_tokens / decode_seconds`` is a speed. ``finished`` counts generations by
    reason. Of the ``draft_tokens`` that were decoded speculatively, the sampler accepted ``accepted_draft_tokens``.
    """

    __slots__ = (
        "_is_prefill_step",
        "accepted_draft_tokens",
        "batch_sequences",
        "batch_tokens",
        "cached_tokens",
        "decode_seconds",
        "decode_tokens",
        "draft_tokens",
        "finished",
        "generated_tokens",
        "prefill_seconds",
        "prompt_tokens",
    )

    def __init__(self) -> None:
        self.prompt_tokens = self.cached_tokens = self.generated_tokens = 0
        self.decode_tokens = self.draft_tokens = self.accepted_draft_tokens = 0
        self._is_prefill_step = False
        self.prefill_seconds = self.decode_seconds = 0.0
        self.finished = Counter(dict.fromkeys(FINISH_REASONS, 0))
        self.batch_sequences = Histogram(SEQUENCE_BUCKETS)
        self.batch_tokens = Histogram(TOKEN_BUCKETS)

    def record_step(self, sequences: int, tokens: int, *, prompt_tokens: int, seconds: float) -> None:
        """Count a decoded batch, before its tokens are sampled; ``tokens`` does not include drafts."""
        self.batch_sequences.observe(sequences)
        self.batch_tokens.observe(tokens)
        self.prompt_tokens += prompt_tokens
        self._is_prefill_step = prompt_tokens > 0
        if self._is_prefill_step:
            self.prefill_seconds += seconds
        else:
            self.decode_seconds += seconds
            self.decode_tokens += sequences

    def record_draft(self, drafted: int, accepted: int) -> None:
        """Count the draft of one sequence in the batch that was decoded last."""
        self.draft_tokens += drafted
        self.accepted_draft_tokens += accepted
        if not self._is_prefill_step:
            self.decode_tokens += accepted
