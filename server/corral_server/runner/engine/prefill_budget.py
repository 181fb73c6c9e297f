"""Prefill budget: the number of prompt tokens that one step may compute.

Invariants:

- prefill delays the next token of a running stream by about ``STREAMING_SECONDS`` at most;
- without running streams a step takes about ``IDLE_SECONDS`` at most, so that on a slow machine a cancelled request or
  a liveness probe does not wait long.

Small chunks are less efficient. Measured on a CPU: a token in a chunk of 64 takes as long as one in a chunk of 512, a
token in a chunk of 32 takes a fifth longer.
"""

from __future__ import annotations

STREAMING_SECONDS = 0.25
"""Target duration of a step in which streams wait for their next token."""
IDLE_SECONDS = 2.0
"""Target duration of a step without running streams."""
STREAMING_MIN_TOKENS = 32
IDLE_MIN_TOKENS = 64
INITIAL_TOKENS = 64
"""Tokens of the first chunk, before the speed is known."""
_SMOOTHING = 0.3
"""Weight of the newest step in the moving average."""


class PrefillBudget:
    """Moving average of the prefill speed, converted to tokens per step."""

    def __init__(self, batch_capacity: int) -> None:
        self._batch_capacity = batch_capacity
        self._tokens_per_second = 0.0

    def tokens_per_step(self, *, streaming: bool) -> int:
        """Return the number of prompt tokens for the next step; ``streaming``: streams wait for their next token."""
        if self._tokens_per_second == 0:
            return min(self._batch_capacity, INITIAL_TOKENS)
        seconds, minimum = (STREAMING_SECONDS, STREAMING_MIN_TOKENS) if streaming else (IDLE_SECONDS, IDLE_MIN_TOKENS)
        return min(self._batch_capacity, max(minimum, int(self._tokens_per_second * seconds)))

    def record_step(self, tokens: int, seconds: float) -> None:
        """Update the average after a step; a step of few tokens is no measure of the prefill speed."""
        if tokens < STREAMING_MIN_TOKENS or seconds <= 0:
            return
        speed = tokens / seconds
        if self._tokens_per_second == 0:
            self._tokens_per_second = speed
        else:
            self._tokens_per_second += _SMOOTHING * (speed - self._tokens_per_second)
