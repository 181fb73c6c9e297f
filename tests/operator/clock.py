"""Clock of which the tests set the time."""

from __future__ import annotations

from tests.operator.samples import NOW


class ManualClock:
    """Returns ``now``, in Unix seconds."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now
