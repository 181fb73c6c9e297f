"""Errors of urllib3, ssl and sockets as errors of a pull, with what to do.

- A failure of the line or of a busy server is a TransientError. What needs a change, such as an untrusted certificate
  or a proxy that refuses, is a SourceError.
- No text has a query, a header or the proxy's credentials.
"""

from __future__ import annotations

import re
import socket
import ssl
from typing import Final, TypeVar

from urllib3.exceptions import (
    ConnectTimeoutError,
    EmptyPoolError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from corral_core.base.errors import CorralError, SourceError
from corral_server.pull.errors import TransientError
from corral_server.pull.http.settings import CA_SETTING, PLAIN_SETTING, ProxyServer
from corral_server.pull.http.urls import HttpUrl

E = TypeVar("E", bound=BaseException)

_UNKNOWN_ISSUER: Final = frozenset({18, 19, 20, 21})  # openssl/x509_vfy.h: self-signed, or no issuer certificate
_TUNNEL: Final = re.compile(r"Tunnel connection failed: ([0-9]{3})")
_SHOWN: Final = 200


def converted(error: Exception, url: HttpUrl, proxy: ProxyServer | None) -> CorralError:
    """Return the error of a pull for an error of a request to ``url``, which was sent through ``proxy``."""
    if isinstance(error, ProxyError) and proxy is not None:
        return _proxy_failure(error, url, proxy)
    if (found := _cause(error, ssl.SSLError)) is not None or isinstance(error, SSLError):
        return _tls_failure(found, f"{url.authority}", of_proxy=False)
    return _line_failure(error, url, proxy)


def _proxy_failure(error: ProxyError, url: HttpUrl, proxy: ProxyServer) -> CorralError:
    if (found := _cause(error, ssl.SSLError)) is not None:
        return _tls_failure(found, f"the proxy {proxy.url}", of_proxy=True)
    refusal = _TUNNEL.search(str(error))
    if refusal is None:
        return TransientError(
            f"the proxy {proxy.url} cannot be reached: {_reason(error)}; check HTTPS_PROXY, or add {url.host} to "
            "NO_PROXY if it is reached directly"
        )
    status = int(refusal[1])
    if status in (401, 407):  # tinyproxy answers 401 to wrong credentials
        return SourceError(
            f"the proxy {proxy.url} refuses the user or password of HTTPS_PROXY (status {status})"
            if proxy.authorization
            else f"the proxy {proxy.url} requires credentials: write user:password@ before the host in HTTPS_PROXY"
        )
    if status in (429, 500, 502, 503, 504):
        return TransientError(f"the proxy {proxy.url} cannot reach {url.authority} (status {status})")
    return SourceError(
        f"the proxy {proxy.url} refuses connections to {url.authority} (status {status}): have the host allowed "
        f"there, or add {url.host} to NO_PROXY if it is reached directly"
    )


def _tls_failure(error: ssl.SSLError | None, host: str, *, of_proxy: bool) -> CorralError:
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the certificate of {host} is not trusted: {error.verify_message or 'verification failed'}"
        if error.verify_code in _UNKNOWN_ISSUER:
            text += (
                f"; if a company's proxy or CA has issued it, add the PEM file of that CA to {CA_SETTING} (caBundle)"
            )
        return SourceError(text)
    reason = (error.reason or "" if error is not None else "").replace("_", " ").lower()
    if error is not None and error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        hint = "write HTTPS_PROXY with http://" if of_proxy else f"if it is meant to, add it to {PLAIN_SETTING}"
        return SourceError(f"{host} does not speak TLS; {hint}")
    return TransientError(f"the TLS connection to {host} failed: {reason or 'the connection ended'}")


def _line_failure(error: Exception, url: HttpUrl, proxy: ProxyServer | None) -> CorralError:
    host = url.authority
    if isinstance(error, NameResolutionError):
        return TransientError(
            f"the name {url.host} cannot be resolved: {_reason(error)}; check the host, the DNS server, and whether "
            "this network needs HTTPS_PROXY"
        )
    if isinstance(error, ConnectTimeoutError | NewConnectionError):
        return TransientError(f"{host} cannot be reached: {_reason(error)}")
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return TransientError(f"{host} has sent nothing for too long{' (through the proxy)' if proxy else ''}")
    if isinstance(error, EmptyPoolError):
        return TransientError(f"all connections to {host} are in use")
    return TransientError(f"the connection to {host} failed: {_reason(error)}")


def _reason(error: BaseException) -> str:
    """Return the system's text for the innermost error, else the kind of the error."""
    found = _cause(error, OSError)
    if isinstance(found, socket.gaierror | ConnectionError) or (found is not None and found.strerror):
        return (found.strerror or type(found).__name__)[:_SHOWN]
    if isinstance(found, TimeoutError) or _cause(error, ConnectTimeoutError) is not None:
        return "no answer in time"
    if isinstance(error, ProtocolError):
        return "the connection was closed or the response is not valid HTTP"
    return type(found or error).__name__


def _cause(error: BaseException, kind: type[E]) -> E | None:
    """Return the innermost error of a kind among an error, its causes and its arguments."""
    found: E | None = None
    todo: list[BaseException] = [error]
    for _ in range(16):
        if not todo:
            break
        current = todo.pop(0)
        if isinstance(current, kind):
            found = current
        inner = [current.__cause__, current.__context__, getattr(current, "original_error", None), *current.args]
        todo.extend(item for item in inner if isinstance(item, BaseException))
    return found
