"""Server-sent events, by the HTML Living Standard, section 9.2.6 "Interpreting an event stream"."""

from __future__ import annotations

EVENT_STREAM = b"text/event-stream"


def server_sent_event(data: str, event: str = "") -> bytes:
    """Encode one event. ``data`` is a single line; ``event`` is the event's type, if any."""
    return (f"event: {event}\ndata: {data}\n\n" if event else f"data: {data}\n\n").encode()
