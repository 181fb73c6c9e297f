"""Media types of streams, and server-sent events by the HTML Living Standard, section 9.2.6.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

EVENT_STREAM = b"text/event-stream"
JSON_LINES = b"application/x-ndjson"


def server_sent_event(data: str, event: str = "") -> bytes:
    """Encode one event. ``data`` is a single line; ``event`` is the event's type, if any."""
    return (f"event: {event}\ndata: {data}\n\n" if event else f"data: {data}\n\n").encode()
