"""Who is told what happens to a request while no coroutine waits for it: one object for both of its connections.

A method call on it costs less than a stored bound method, of which each request would need several.
"""

from __future__ import annotations


class Listener:
    """Each method does nothing unless it is overridden."""

    __slots__ = ()

    def heard(self) -> None:
        """The runner's connection has something to take, is complete, or is broken."""

    def left(self) -> None:
        """The client left before its answer was finished."""

    def draining(self) -> None:
        """The server wants to end."""

    def writable(self) -> None:
        """The client reads again."""
