"""What one client may send, and how long it may be silent, before its connection is closed."""

HEAD_LIMIT = 64 * 1024
"""Bytes of request line and headers."""
HEADER_COUNT = 200
SLOW_LIMIT = 60.0
"""Seconds in which a client that began a request must send something more."""
AHEAD_LIMIT = 16
"""Requests that may be sent ahead before reading stops; with reading, a client's departure goes unnoticed."""
LINGER = 5.0
"""Seconds in which the rest of a refused body is thrown away, so that the client can read why."""
