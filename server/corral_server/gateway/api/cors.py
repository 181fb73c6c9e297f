"""CORS and the Host check, as Ollama applies them (server/routes.go, ``allowedHostsMiddleware``; gin-contrib/cors).

- The Host check protects a listener on loopback against DNS rebinding; it is off on any other address.
- A request without ``Origin``, or with the origin of the host that it calls, is not checked for CORS. Any other origin
  must be allowed, or the response is 403 with an empty body, whatever the method.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.http_server.exchange import Headers
from corral_server.gateway.messages import Response

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - names of origins, nothing is bound
_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
DEFAULT_ORIGINS = (
    *(f"{scheme}://{host}{port}" for host in _LOCAL_HOSTS for scheme in ("http", "https") for port in ("", ":*")),
    *(f"{scheme}://*" for scheme in _SCHEMES),
)
_METHODS = b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_STAINLESS = (
    "Arch,Async,Custom-Poll-Interval,Helper-Method,Lang,Os,Package-Version,Poll-Helper,Retry-Count,Runtime,"
    "Runtime-Version,Timeout"
)
_HEADERS = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta"
_ALLOW_HEADERS = ",".join([_HEADERS, *(f"X-Stainless-{name}" for name in _STAINLESS.split(","))]).encode()
_MAX_AGE = b"43200"
_LOCAL_DOMAINS = (".localhost", ".local", ".internal")

FORBIDDEN = Response(403, content_type=None)
NO_HEADERS: Headers = []


class AllowedOrigins:
    """Origins that may call, ``DEFAULT_ORIGINS`` included.

    An entry may hold one ``*`` as a wildcard; ``*`` alone allows all. Raises InvalidSetting for more than one.
    """

    def __init__(self, configured: Iterable[str]) -> None:
        entries = [entry.strip().lower() for entry in (*configured, *DEFAULT_ORIGINS)]
        for entry in entries:
            if entry.count("*") > 1:
                raise InvalidSetting(f"OLLAMA_ORIGINS: {entry!r} is not allowed: it may hold only one '*'")
        self._all = "*" in entries
        self._exact = frozenset(entry for entry in entries if "*" not in entry)
        self._wildcards = [
            (entry[: entry.index("*")], entry[entry.index("*") + 1 :]) for entry in entries if "*" in entry
        ]

    def allows(self, origin: str) -> bool:
        if self._all or origin in self._exact:
            return True
        return any(
            len(origin) >= len(start) + len(end) and origin.startswith(start) and origin.endswith(end)
            for start, end in self._wildcards
        )

    def check(self, method: str, origin: bytes, host: bytes) -> Response | Headers:
        """Return the headers to add to the response, or the whole response when the request ends here."""
        if not origin or origin in (b"http://" + host, b"https://" + host):
            return NO_HEADERS
        if not self.allows(origin.decode("latin-1")):
            return FORBIDDEN
        headers = [(b"access-control-allow-origin", b"*" if self._all else origin)]
        if not self._all:
            headers.append((b"vary", b"Origin"))
            headers += _VARY if method == "OPTIONS" else ()
        return Response(204, content_type=None, headers=(*headers, *_PREFLIGHT)) if method == "OPTIONS" else headers


_VARY = ((b"vary", b"Access-Control-Request-Method"), (b"vary", b"Access-Control-Request-Headers"))
_PREFLIGHT = (
    (b"access-control-allow-methods", _METHODS),
    (b"access-control-allow-headers", _ALLOW_HEADERS),
    (b"access-control-max-age", _MAX_AGE),
)


def is_loopback(host: str) -> bool:
    """Whether a listener on ``host`` is reachable from this machine only, so that the Host check applies."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@functools.lru_cache(maxsize=256)
def host_allowed(header: bytes) -> bool:
    """Whether a Host header names this machine: a local or private address, its host name, or a local domain."""
    host = _hostname(header.decode("latin-1")).lower()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in ("", "localhost", socket.gethostname().lower()) or host.endswith(_LOCAL_DOMAINS)
    if address.is_loopback or address.is_unspecified or _is_private(address):
        return True
    return _is_own(address)


def _hostname(header: str) -> str:
    """Strip the port, as Go's net.SplitHostPort does; a header that does not split is the host itself."""
    if header.startswith("["):
        host, bracket, rest = header[1:].partition("]")
        return host if bracket and rest.startswith(":") else header
    host, colon, rest = header.partition(":")
    return host if colon and ":" not in rest else header


_PRIVATE = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address.version == network.version and address in network for network in _PRIVATE)


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an interface of this machine has the address: a socket can be bound only then."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
