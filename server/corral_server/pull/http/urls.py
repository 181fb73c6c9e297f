"""URLs of requests: parsed once, checked, and shown without what could be secret.

- The host that is checked is the host that is connected to: no second parser sees the URL.
- A URL has no user, password or fragment, and its host is an ASCII name or an address.
- Neither ``str`` nor ``repr`` of a URL has its query: signed URLs carry their signature there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from corral_core.base.errors import SourceError
from corral_server.pull.http.addresses import literal_address

MAX_URL: Final = 16 * 1024
"""Characters of a URL. Signed URLs of object stores have up to about 4 KiB."""

_SHOWN: Final = 200
_SAFE: Final = "%/:=&?~#+!$,;'@()*[]"
_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII)
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """``host`` is in lower case without brackets and final dot; ``target`` is path and query."""

    scheme: str
    host: str
    port: int
    target: str = field(repr=False)

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Return host and port; the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def has_query(self) -> bool:
        return "?" in self.target

    @property
    def full(self) -> str:
        """Return the URL with its query."""
        return f"{self.scheme}://{self.authority}{self.target}"

    def __str__(self) -> str:
        path = self.target.partition("?")[0]
        return f"{self.scheme}://{self.authority}{path if len(path) <= _SHOWN else path[:_SHOWN] + '...'}"


def parse_url(url: str) -> HttpUrl:
    """Parse an absolute URL; what URLs cannot contain is percent-encoded. Raises SourceError."""
    if len(url) > MAX_URL:
        raise SourceError(f"a URL has {len(url)} characters; at most {MAX_URL} are supported")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in url):
        raise SourceError("a URL contains control characters")
    try:
        parts = urlsplit(quote(url.strip(), safe=_SAFE))
        host, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise SourceError("a URL is not valid: its host or port cannot be read") from None
    if parts.scheme not in _PORTS:
        raise SourceError(f"a URL has the scheme {parts.scheme[:20]!r}; only https and http are supported")
    if "@" in parts.netloc:
        raise SourceError(f"the URL for {host[:_SHOWN]!r} contains a user or password; put them into a Secret instead")
    address = literal_address(host)
    if "%" in host or (address is None and (not _NAME.fullmatch(host) or len(host) > 253)):
        raise SourceError(f"a URL has the host {host[:_SHOWN]!r}, which is not a host name (write names in ASCII)")
    if port == 0:
        raise SourceError(f"the URL for {host[:_SHOWN]!r} has the port 0")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return HttpUrl(parts.scheme, str(address) if address else host, port or _PORTS[parts.scheme], target)


def join_url(base: HttpUrl, location: str) -> HttpUrl:
    """Return the URL that a Location header means; http.client decodes headers as Latin-1. Raises SourceError."""
    if len(location) > MAX_URL:
        raise SourceError(f"{base.authority} redirects to a URL of {len(location)} characters")
    encoded = quote(location.encode("latin-1", "replace"), safe=_SAFE)
    try:
        return parse_url(urljoin(base.full, encoded))
    except SourceError as error:
        raise SourceError(f"{base.authority} redirects to a URL that is not valid: {error}") from None
    except ValueError:
        raise SourceError(f"{base.authority} redirects to a URL that is not valid") from None
