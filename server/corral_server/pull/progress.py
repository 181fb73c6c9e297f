"""Progress of a pull, as values that are passed to a callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class PullStage(StrEnum):
    """Stages of a pull, in order."""

    RESOLVING = "resolving"
    PULLING = "pulling"
    VERIFYING = "verifying"
    PUBLISHING = "publishing"


@dataclass(frozen=True, slots=True)
class PullProgress:
    """``total`` (None if not known) and ``completed`` in bytes, ``rate`` in bytes/s, of one file or of a whole pull."""

    total: int | None
    completed: int
    rate: float
    file: str
    stage: PullStage

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end at the present rate, None if not known."""
        if self.total is None or self.rate <= 0:
            return None
        return max(0, self.total - self.completed) / self.rate


ProgressListener = Callable[[PullProgress], None]
"""Called several times a second, from the thread that pulls."""
