"""Base class of what records a response as it is sent: metrics, access log, traces."""

from __future__ import annotations


class ResponseObserver:
    """``status`` is the response's; ``incomplete`` is set when a response that has begun ends too early.

    A class with methods rather than a Protocol: calls between compiled classes cost a tenth of those by name.
    """

    status: int = 0
    incomplete: bool = False

    def record_write(self, piece: bytes, *, stream: bool = False) -> None:
        """A piece of the body, possibly empty, is written; ``stream``: its length was not announced."""

    def finish(self, *, disconnected: bool = False) -> None:
        """The response ended, called once; ``disconnected``: because the client disconnected."""
