"""HTTP client of the puller: small requests of resolvers, and ranges of remote files.

- Redirects are followed here, at most ``MAX_REDIRECTS``, and never from https to http. The caller's headers are not
  sent to another origin (scheme, host and port), and not sent again after that.
- Metadata servers, link-local, multicast and reserved addresses are never connected to. A public host cannot redirect
  to a private address or name a token server there, unless the settings allow it. Behind a proxy only hosts that are
  written as addresses can be checked: the proxy resolves names, and its own rules apply.
- Bodies arrive as they are stored: no compression is asked for, and none is undone.
- Small requests are tried again; ranges are not, since the downloader continues them where they ended.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from corral_core.base.errors import SourceError
from corral_server.pull.errors import FileChanged, LocationExpired, PullError, TransientError
from corral_server.pull.http.address_guard import Resolve, refused_redirect, resolve_name
from corral_server.pull.http.addresses import (
    is_forbidden,
    is_forbidden_name,
    is_loopback_name,
    is_private,
    literal_address,
)
from corral_server.pull.http.connections import Connections, Response
from corral_server.pull.http.ranges import RangeStream, open_stream, range_header, unsatisfied_size
from corral_server.pull.http.retries import ATTEMPTS, PATIENCE, backoff, parse_retry_after
from corral_server.pull.http.settings import PLAIN_SETTING, NetworkSettings, ProxyServer
from corral_server.pull.http.urls import HttpUrl, join_url, parse_url
from corral_server.pull.http_requests import RESPONSE_LIMIT, HttpResponse
from corral_server.pull.remote_files import HttpLocation, Location

MAX_REDIRECTS: Final = 10
BODY_TIMEOUT: Final = 120.0
"""Seconds for the body of a small response."""
USER_AGENT: Final = "corral"

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KEPT_HEADERS: Final = frozenset({"accept", "user-agent"})
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True)
class _Hop:
    """One request of a chain of redirects. ``private`` says whether private addresses are allowed."""

    url: HttpUrl
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    private: bool = True


class HttpClient:
    """Implements ``HttpRequests``, and ``RangeReader`` for ``HttpLocation``; thread-safe.

    The constructor raises InvalidSetting. ``wait`` waits for the seconds that it is called with; ``resolve`` returns
    the addresses of a name.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        wait: Callable[[float], object] | None = None,
        resolve: Resolve = resolve_name,
    ) -> None:
        self._settings = settings
        self._connections = Connections(settings, resolve)
        self._wait = wait or threading.Event().wait

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._connections.close()

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
        """Do what ``HttpRequests.request`` says."""
        start = _Hop(parse_url(url), _checked_headers(headers or {}), body)
        if named_by:
            start = replace(start, private=self._may_be_private(start.url, parse_url(named_by)))
        waited = 0.0
        for attempt in range(ATTEMPTS):
            try:
                return self._attempt(method, start, limit=limit, redirects=redirects and body is None)
            except TransientError as error:
                delay = backoff(attempt) if error.retry_after is None else error.retry_after
                waited += delay
                if attempt + 1 == ATTEMPTS or waited > PATIENCE:
                    raise
                self._wait(delay)
        raise AssertionError("unreachable")

    def open(self, location: Location, *, start: int = 0, end: int | None = None) -> RangeStream:
        """Do what ``RangeReader.open`` says; FileChanged if the server answers another range or size than asked for.

        A 401 for a location with an Authorization header, and a 401 or 403 for a URL with a query (a signed URL), are
        LocationExpired: tokens of registries and signed URLs are valid for minutes. Resolving again brings a new one,
        or the error of wrong credentials.
        """
        if not isinstance(location, HttpLocation):
            raise TypeError(f"{type(location).__name__} is not read by HTTP")
        wanted = range_header(start, end)
        hop = _Hop(parse_url(location.url), _checked_headers(location.headers))
        response = self._follow("GET", hop, extra=wanted)
        try:
            if response.status not in ((200, 206) if wanted else (200,)):
                raise _refusal(response, authorized="authorization" in hop.headers)
            return open_stream(response, start, end)
        except BaseException:
            response.discard()
            raise

    def _attempt(self, method: str, start: _Hop, *, limit: int, redirects: bool) -> HttpResponse:
        response = self._follow(method, start, redirects=redirects)
        try:
            if response.status == 429 or (response.status >= 500 and response.status != 501):
                raise _busy(response)
            with response.limited(BODY_TIMEOUT):
                content = _read_body(response, limit)
        finally:
            response.discard()
        return HttpResponse(response.status, response.url.full, response.headers, content)

    def _follow(
        self, method: str, hop: _Hop, *, extra: Mapping[str, str] | None = None, redirects: bool = True
    ) -> Response:
        """Send a request and follow redirects. ``extra`` headers are sent to every host."""
        own = {"accept-encoding": "identity", "user-agent": USER_AGENT}
        for _ in range(MAX_REDIRECTS + 1):
            proxy = self._route(hop)
            sent = {**own, **hop.headers, **(extra or {})}
            response = self._connections.send(method, hop.url, sent, body=hop.body, proxy=proxy, private=hop.private)
            place = response.headers.get("location", "")
            if not redirects or response.status not in _REDIRECTS or not place:
                return response
            response.discard()
            hop = self._next(hop, place, proxy)
        raise SourceError(f"{hop.url.authority} was reached after {MAX_REDIRECTS} redirects and redirects again")

    def _next(self, hop: _Hop, place: str, proxy: ProxyServer | None) -> _Hop:
        """Return the request that a Location header asks for. Raises SourceError."""
        url = join_url(hop.url, place)
        if hop.url.scheme == "https" and url.scheme == "http":
            raise SourceError(f"{hop.url.authority} redirects to http://{url.authority}: the connection would lose TLS")
        private = self._settings.private_redirects or (hop.private and self._is_private(hop.url, proxy))
        if url.origin == hop.url.origin:
            return _Hop(url, hop.headers, private=hop.private)
        kept = {name: value for name, value in hop.headers.items() if name in _KEPT_HEADERS}
        return _Hop(url, kept, private=private)

    def _may_be_private(self, url: HttpUrl, named_by: HttpUrl) -> bool:
        """Return whether a URL that another server named may have a private address, as for a redirect from there."""
        if self._settings.private_redirects or url.origin == named_by.origin:
            return True
        return self._is_private(named_by, self._settings.proxy_for(named_by.scheme, named_by.host, named_by.port))

    def _is_private(self, url: HttpUrl, proxy: ProxyServer | None) -> bool:
        """Return whether the host has a private address, as far as that is known."""
        if (address := literal_address(url.host)) is not None:
            return is_private(address)
        if proxy is not None:
            return is_loopback_name(url.host)
        return self._connections.peers.is_private(url.host, url.port)

    def _route(self, hop: _Hop) -> ProxyServer | None:
        """Check the scheme and the host of a request, and return the proxy to use. Raises SourceError."""
        url, address = hop.url, literal_address(hop.url.host)
        if url.scheme == "http" and not self._settings.is_plain(url.host, url.port):
            raise SourceError(
                f"{url} has no TLS; use https, or add {url.authority} to {PLAIN_SETTING} if its network is trusted"
            )
        if is_forbidden_name(url.host) or (address is not None and is_forbidden(address)):
            raise SourceError(f"{url.host} is never connected to: it is a link-local, metadata or reserved address")
        if not hop.private and (is_loopback_name(url.host) or (address is not None and is_private(address))):
            raise refused_redirect(url.host)
        return self._settings.proxy_for(url.scheme, url.host, url.port)


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with lower-case names. Raises SourceError, without the value."""
    lower = {name.lower(): value for name, value in headers.items()}
    for name, value in lower.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise SourceError(
                f"the value of the header {name[:60]!r} has characters that HTTP does not allow; check the token or "
                "password for line breaks"
            )
    return lower


def _busy(response: Response) -> TransientError:
    wait = parse_retry_after(response.headers.get("retry-after"))
    reason = "too many requests" if response.status == 429 else "the server failed"
    return TransientError(f"{response.url} answers {response.status} ({reason})", retry_after=wait)


def _refusal(response: Response, *, authorized: bool) -> SourceError | PullError:
    """Return the error for a response that is not the file."""
    status, url = response.status, response.url
    if status in (408, 429) or status >= 500:
        return _busy(response)
    if (status == 401 and authorized) or (status in (400, 401, 403) and url.has_query):
        return LocationExpired(f"{url} is not valid any more (status {status})")
    if status in (401, 403):
        return SourceError(
            f"{url} refuses access (status {status}): it needs credentials that are allowed to read it; name their "
            "Secret in spec.sourceSecretRef, or set the environment variable of the service"
        )
    if status in (404, 410):
        return SourceError(f"{url} does not exist (status {status})")
    if status == 412:
        return FileChanged(f"{url} has changed (status 412)")
    if status == 416:
        size = unsatisfied_size(response.headers)
        return FileChanged(f"{url} is shorter than expected{'' if size is None else f': it has {size} bytes'}")
    return SourceError(f"{url} answers {status} instead of the file")


def _read_body(response: Response, limit: int) -> bytes:
    """Return the body. Raises SourceError above ``limit`` bytes, and TransientError."""
    too_large = SourceError(f"the response of {response.url} is larger than {limit} bytes")
    if response.length is not None and response.length > limit:
        raise too_large
    if (encoding := response.headers.get("content-encoding", "identity").lower()) not in ("", "identity"):
        raise SourceError(f"the response of {response.url} is compressed ({encoding[:20]}) although it must not be")
    parts, size = [], 0
    while data := response.read(limit + 1 - size):
        parts.append(data)
        size += len(data)
        if size > limit:
            raise too_large
    return b"".join(parts)
