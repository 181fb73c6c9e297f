"""Events of pulls in the log of local mode, and their progress on its terminal.

On a terminal the last line shows the progress; elsewhere an event does, every ``INTERVAL`` seconds.
"""

from __future__ import annotations

import time

from corral_core.sources.snapshot import Snapshot
from corral_core.sources.uri import shown_uri
from corral_server.local.event_log import EventLog
from corral_server.local.pulls.progress_text import percent, progress_text, size_text
from corral_server.pull.progress import PullProgress

INTERVAL = 10.0
"""Seconds between two events of one pull."""


class PullLog:
    """Listener of the pulls."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._lines: dict[str, str] = {}
        self._logged: dict[str, float] = {}

    def started(self, uri: str) -> None:
        self._logged[uri] = time.monotonic()
        self._log.event("pulling", source=shown_uri(uri))

    def progressed(self, uri: str, progress: PullProgress) -> None:
        if self._log.has_status_line:
            self._show(uri, f"{shown_uri(uri)}  {progress_text(progress)}")
        elif time.monotonic() - self._logged.get(uri, 0.0) >= INTERVAL:
            self._logged[uri] = time.monotonic()
            fields = {"percent": percent(progress), "bytes": progress.completed, "total": progress.total}
            rate = {"bytes_per_s": round(progress.rate), "seconds_left": progress.seconds_left}
            self._log.event("pulling", source=shown_uri(uri), stage=progress.stage, **fields, **rate)

    def pulled(self, uri: str, snapshot: Snapshot, seconds: float) -> None:
        self._show(uri, "")
        size = size_text(snapshot.size)
        self._log.event("pulled", source=shown_uri(uri), pin=snapshot.pin, size=size, seconds=round(seconds, 2))

    def failed(self, uri: str, error: str, pause: float) -> None:
        self._show(uri, "")
        self._log.problem("pull_failed", source=shown_uri(uri), reason=error, retry_s=pause)

    def _show(self, uri: str, line: str) -> None:
        """Show the progress of all pulls in the terminal's last line; an empty line removes this pull from it."""
        if line:
            self._lines[uri] = line
        else:
            self._lines.pop(uri, None)
        self._log.show_status("   ".join(self._lines.values()))
