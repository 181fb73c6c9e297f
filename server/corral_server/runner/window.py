"""What happens when tokens do not fit the context: pure arithmetic, for prompts and for running generations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    "adjust the context length in settings, or use a model with a longer context length"
)


@dataclass(frozen=True, slots=True)
class Shift:
    """Positions [start, end) are forgotten and what follows moves down by their number."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def kept(keep: int, length: int, *, context: int) -> int:
    """How many tokens at the start are never cut: ``keep``, all when negative, but never the whole window."""
    wanted = length if keep < 0 else min(keep, length)
    return min(wanted, context - 2)


def cut_prompt(prompt: Sequence[int], keep: int, *, context: int) -> tuple[int, ...]:
    """The first ``keep`` tokens and the newest half of the window that is left after them."""
    first = kept(keep, len(prompt), context=context)
    newest = max(1, (context - first) // 2)
    return (*prompt[:first], *prompt[len(prompt) - newest :])


def shift_of(length: int, keep: int, *, context: int) -> Shift:
    """Makes room in a full window: the older half of what follows the kept tokens goes, at least one token."""
    first = min(kept(keep, length, context=context), length - 1)
    return Shift(first, first + max(1, (length - first) // 2))
