"""RFC 3339 as the Kubernetes API writes it, to and from Unix seconds (UTC)."""

from __future__ import annotations

from datetime import UTC, datetime


def format_seconds(when: float) -> str:
    """``metav1.Time``: whole seconds."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro(when: float) -> str:
    """``metav1.MicroTime``: always six digits."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_timestamp(text: str) -> float | None:
    """Unix seconds, or None when the text is no RFC 3339 time."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed.timestamp() if parsed.tzinfo is not None else None
