"""HTTP requests of resolvers: small responses, as a protocol that ``http.client.HttpClient`` implements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

RESPONSE_LIMIT: Final = 8 * 1024 * 1024
"""Bytes of a manifest or a list of files; larger responses are errors."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """``headers`` have lower-case names; ``url`` is the URL that answered, after redirects.

    ``repr`` shows the status alone: URLs, headers and bodies can carry tokens.
    """

    status: int
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class HttpRequests(Protocol):
    """Sends requests by the configured proxy and authorities; thread-safe."""

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        limit: int = RESPONSE_LIMIT,
        redirects: bool = True,
        named_by: str = "",
    ) -> HttpResponse:
        """Return the response, whatever its status, except 429 and 5xx (not 501), which are tried again.

        ``body`` is sent as it is; ``headers`` name its Content-Type. ``headers`` such as
        Authorization are not sent to another host. Without ``redirects``, and with a body, a 3xx response is returned.
        ``named_by`` is the URL of the server, asked before, that named ``url``: the address of ``url`` may be private
        only as for a redirect from there. Raises TransientError when the attempts are used up, and SourceError for what
        needs a change: an untrusted certificate, a refused proxy, a response above ``limit`` bytes, or an address that
        is forbidden.
        """
        ...
