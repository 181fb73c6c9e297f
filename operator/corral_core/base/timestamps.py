"""RFC 3339 timestamps of the Kubernetes API, to and from Unix seconds (UTC)."""

from __future__ import annotations

from datetime import UTC, datetime


def format_time(when: float) -> str:
    """Format as ``metav1.Time``, with whole seconds."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(when: float) -> str:
    """Format as ``metav1.MicroTime``, with six decimals."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_timestamp(text: str) -> float | None:
    """Parse to Unix seconds; None if it is not an RFC 3339 timestamp with a time zone."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.timestamp() if parsed.tzinfo is not None else None
