"""Context shift: which tokens are dropped when a prompt or a running generation does not fit the context.

Pure arithmetic. The rules are those of Ollama's runner (``runner/llamarunner/cache.go`` and ``runner.go``) and of
llama.cpp's server (``tools/server/server-context.cpp``): the first ``num_keep`` tokens stay, half of the rest is
dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    "adjust the context length in settings, or use a model with a longer context length"
)


@dataclass(frozen=True, slots=True)
class ContextShift:
    """Positions [start, end) are removed; the positions after them move down by ``size``."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def tokens_to_keep(keep: int, length: int, *, context: int) -> int:
    """Return how many of the first ``length`` tokens are never dropped.

    ``keep`` of them, all when it is negative; at most ``context - 2``, so that a shift always makes room.
    """
    wanted = length if keep < 0 else min(keep, length)
    return min(wanted, context - 2)


def truncate_prompt(prompt: Sequence[int], keep: int, *, context: int) -> tuple[int, ...]:
    """Return the first ``keep`` tokens and the last tokens of the prompt, which fill half of the remaining context."""
    first = tokens_to_keep(keep, len(prompt), context=context)
    newest = max(1, (context - first) // 2)
    return (*prompt[:first], *prompt[len(prompt) - newest :])


def compute_shift(length: int, keep: int, *, context: int) -> ContextShift:
    """Drop the older half of the ``length`` tokens that follow the kept ones; at least one token."""
    first = min(tokens_to_keep(keep, length, context=context), length - 1)
    return ContextShift(first, first + max(1, (length - first) // 2))
