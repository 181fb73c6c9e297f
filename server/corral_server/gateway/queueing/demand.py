"""Rate-limited demand reports: pending requests by model.

The first pending request and the end of the last one are reported immediately, because they load a model and allow it
to be unloaded. Changes between them are reported at most once per ``REPORT_INTERVAL``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

REPORT_INTERVAL = 1.0
"""Seconds between two reports about a model whose queue does not become empty."""

ReportDemand = Callable[[str, int, "float | None"], None]
DemandLevel = Callable[[str], "tuple[int, float | None]"]


class DemandReporter:
    """Keeps the last report of each model.

    ``level(key)`` returns the number of pending requests and the oldest arrival.
    """

    def __init__(self, report: ReportDemand, level: DemandLevel) -> None:
        self._report_demand = report
        self._level = level
        self._reported: dict[str, tuple[int, float | None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def __contains__(self, key: str) -> bool:
        """Return whether the last report of the model contained pending requests."""
        return key in self._reported

    def update(self, key: str) -> None:
        """Report the model if needed. Called after every change of its queue."""
        level = self._level(key)
        if level[0] == 0 or key not in self._reported:
            self._report(key, level)
        elif level != self._reported[key] and key not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(REPORT_INTERVAL, self._report_change, key)

    def close(self) -> None:
        """Withdraw all demand."""
        for key in tuple(self._reported):
            self._report(key, (0, None))

    def _report_change(self, key: str) -> None:
        del self._timers[key]
        level = self._level(key)
        if level != self._reported.get(key):
            self._report(key, level)

    def _report(self, key: str, level: tuple[int, float | None]) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if level[0]:
            self._reported[key] = level
        elif self._reported.pop(key, None) is None:
            return
        self._report_demand(key, level[0], level[1])
