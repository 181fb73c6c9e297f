"""Errors of a pull.

SourceError (corral_core)   permanent: the source, its credentials or the setting must change; the text says how
└── ContentError            what was downloaded is not what the source names; it is known after the whole download only
PullError
├── TransientError          tried again with growing delays, or after ``retry_after`` seconds
│   └── LocationExpired     the URL is not valid any more: resolve the source again, then continue
├── FileChanged             the file is not the pinned one any more: resolve again and start again
├── StoreFull               the store has no room for the file; the text has the numbers
└── PullCancelled           the pull was cancelled; what is pulled stays for the next attempt
"""

from __future__ import annotations

from corral_core.base.errors import CorralError, SourceError


class ContentError(SourceError):
    """Downloaded content that is wrong. ``retry_after``: seconds until it is downloaded again, None if not known."""

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class PullError(CorralError):
    """Base of the errors that do not depend on the Model's source alone."""


class TransientError(PullError):
    """A failure that a later attempt may not meet. ``retry_after`` is in seconds, None if the server named no time."""

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class LocationExpired(TransientError):
    """A signed URL that is not valid any more."""


class FileChanged(PullError):
    """A remote file whose version or size differs from the resolved one."""


class StoreFull(PullError):
    """A store without room for a file."""


class PullCancelled(PullError):
    """A pull that was cancelled, for example because the process ends."""
