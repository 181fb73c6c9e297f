"""Network settings of a puller: proxy, exceptions, authorities, hosts without TLS.

- ``HTTPS_PROXY`` and ``NO_PROXY`` are read in upper case first, then in lower case, as Go does, and with it Ollama.
- ``HTTP_PROXY`` is not read. It would apply to calls between the processes of a cluster, which are plain HTTP; sources
  are reached by HTTPS, for which ``HTTPS_PROXY`` is the setting. Hosts without TLS are reached directly.
- The proxy's password is in no ``repr`` and no error.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from corral_core.base.errors import InvalidSetting
from corral_core.base.settings import bool_setting, duration_setting, list_setting, str_setting
from corral_server.pull.http.no_proxy import NoProxy, parse_no_proxy

CA_SETTING: Final = "CORRAL_CA_BUNDLE"
PLAIN_SETTING: Final = "CORRAL_PLAIN_HTTP_HOSTS"
PRIVATE_SETTING: Final = "CORRAL_PRIVATE_REDIRECTS"

_FORM: Final = "write it like http://proxy.example.com:3128"


@dataclass(frozen=True, slots=True)
class ProxyServer:
    """``url`` has no credentials. ``authorization`` is the value of Proxy-Authorization, or empty."""

    url: str
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """``plain_http_hosts`` (``host`` or ``host:port``) are reached by HTTP, and never through the proxy.

    ``ca_bundle`` files are added to the system's authorities. ``private_redirects`` lets a public host redirect to a
    private address. After ``stall_timeout`` seconds without a byte a response has failed. ``connections`` is the
    maximum number of connections to one host.
    """

    https_proxy: ProxyServer | None = None
    no_proxy: NoProxy = field(default_factory=NoProxy)
    ca_bundle: tuple[Path, ...] = ()
    plain_http_hosts: frozenset[str] = frozenset()
    private_redirects: bool = False
    connect_timeout: float = 15.0
    stall_timeout: float = 30.0
    connections: int = 64

    def proxy_for(self, scheme: str, host: str, port: int) -> ProxyServer | None:
        """Return the proxy for a host, None if it is reached directly."""
        if scheme != "https" or self.https_proxy is None or self.no_proxy.matches(host, port):
            return None
        return self.https_proxy

    def is_plain(self, host: str, port: int) -> bool:
        """Return whether the host may be reached without TLS."""
        written = f"[{host}]" if ":" in host else host
        return not self.plain_http_hosts.isdisjoint({host, written, f"{written}:{port}"})


def network_settings(environ: Mapping[str, str]) -> NetworkSettings:
    """Read the settings from environment variables. Raises InvalidSetting."""
    proxy = _either(environ, "HTTPS_PROXY")
    return NetworkSettings(
        https_proxy=parse_proxy(proxy) if proxy else None,
        no_proxy=parse_no_proxy(_either(environ, "NO_PROXY")),
        ca_bundle=tuple(Path(name) for name in list_setting(environ, CA_SETTING)),
        plain_http_hosts=frozenset(_plain_host(host) for host in list_setting(environ, PLAIN_SETTING)),
        private_redirects=bool_setting(environ, PRIVATE_SETTING, default=False),
        stall_timeout=duration_setting(environ, "CORRAL_PULL_STALL_TIMEOUT", default=30.0, minimum=1.0),
    )


def parse_proxy(text: str) -> ProxyServer:
    """Parse ``[http[s]://][user:password@]host[:port]``. Raises InvalidSetting, without the credentials."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidSetting(f"HTTPS_PROXY is not a URL: {_FORM}") from None
    if parts.scheme not in ("http", "https"):
        raise InvalidSetting(
            f"HTTPS_PROXY has the scheme {parts.scheme!r}, which is not supported: the proxy must be an HTTP proxy "
            f"with the CONNECT method; {_FORM}"
        )
    if not re.fullmatch(r"[A-Za-z0-9._:-]+", host) or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidSetting(f"HTTPS_PROXY must have a host and no path: {_FORM}")
    written = f"[{host}]" if ":" in host else host
    default = 443 if parts.scheme == "https" else 80
    return ProxyServer(f"{parts.scheme}://{written}:{port or default}", _authorization(parts.username, parts.password))


def _authorization(user: str | None, password: str | None) -> str:
    if not user and not password:
        return ""
    pair = f"{unquote(user or '')}:{unquote(password or '')}"
    return "Basic " + b64encode(pair.encode()).decode()


def _either(environ: Mapping[str, str], name: str) -> str:
    return str_setting(environ, name) or str_setting(environ, name.lower())


def _plain_host(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", text):
        raise InvalidSetting(f"{PLAIN_SETTING}: {text!r} is not a host; write it like registry.svc or 10.1.2.3:5000")
    return text.lower()
