"""Delays between attempts: exponential with jitter, or what a server asks for by Retry-After."""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

ATTEMPTS: Final = 5
FIRST_DELAY: Final = 0.5
MAX_DELAY: Final = 10.0
MAX_RETRY_AFTER: Final = 3600.0
"""Seconds; a server that asks for more is asked again after this time."""
PATIENCE: Final = 60.0
"""Seconds that a small request waits for a server at most; beyond them its caller decides."""


def backoff(attempt: int) -> float:
    """Return the seconds to wait after a failed attempt; the first is 0. Half of the delay is random."""
    longest = min(FIRST_DELAY * 2.0 ** min(attempt, 20), MAX_DELAY)
    return longest * (0.5 + random.random() / 2)  # noqa: S311


def parse_retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Return the seconds of a Retry-After header in either form (RFC 9110 section 10.2.3), bounded; None if invalid."""
    text = (value or "").strip()
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        seconds = float(text[:9])
    elif text and len(text) <= 64:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    else:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
