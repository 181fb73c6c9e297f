"""Adapter to urllib3: connections, pools, proxies, and its errors as errors of a pull.

- Pools are bounded: ``POOLS`` hosts, and for each host the connections of the settings; a request waits for one.
- A direct connection goes to an address that was checked: a name is resolved once, and its addresses are those that
  are connected to (``address_guard``). A proxy resolves names itself.
- urllib3's log lines and errors contain URLs with their queries. The lines are dropped, and errors are not chained.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError, ProtocolError
from urllib3.util.connection import create_connection

from corral_server.pull.errors import TransientError
from corral_server.pull.http.address_guard import AddressGuard, Resolve, resolve_name
from corral_server.pull.http.authorities import Authorities
from corral_server.pull.http.failures import converted
from corral_server.pull.http.settings import NetworkSettings, ProxyServer
from corral_server.pull.http.urls import HttpUrl

POOLS: Final = 32
MAX_POOL_WAIT: Final = 60.0
"""Seconds that a request waits for a connection of its host."""

_DRAINED: Final = 64 * 1024
_IDEMPOTENT: Final = frozenset({"GET", "HEAD"})

logging.getLogger("urllib3").setLevel(logging.CRITICAL)


class _WholeResponse(http.client.HTTPResponse):
    """Response whose head has an end: http.client takes a head that is cut off for a shorter one."""

    def begin(self) -> None:
        lines = _Lines(self.fp)
        self.fp = lines  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            self.fp = lines.file
        if not lines.last:
            self.close()
            raise http.client.RemoteDisconnected("the head of the response was cut off")


class _Lines:
    """Remembers the last line that was read from a file."""

    def __init__(self, file: io.BufferedReader) -> None:
        self.file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self.file.readline(limit)
        return self.last

    def close(self) -> None:
        self.file.close()


class _Connection(HTTPConnection):
    """Connection without TLS. With a ``guard`` it is made to an address that the guard allows."""

    response_class = _WholeResponse
    guard: ClassVar[AddressGuard | None] = None
    head_timeout: ClassVar[float]

    def _new_conn(self) -> socket.socket:
        return _connect(self, self.guard) if self.guard else super()._new_conn()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as in urllib3
        with _limited(self.head_timeout, lambda: _shut_down(self.sock)):
            return super().getresponse()


class _TlsConnection(HTTPSConnection):
    """Connection with TLS, and otherwise like ``_Connection``."""

    response_class = _WholeResponse
    guard: ClassVar[AddressGuard | None] = None
    head_timeout: ClassVar[float]

    def _new_conn(self) -> socket.socket:
        return _connect(self, self.guard) if self.guard else super()._new_conn()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as in urllib3
        with _limited(self.head_timeout, lambda: _shut_down(self.sock)):
            return super().getresponse()


@contextlib.contextmanager
def _limited(seconds: float, end: Callable[[], object]) -> Iterator[None]:
    """Call ``end`` if the block takes longer: a server that sends a byte now and then meets every socket timeout.

    Raises TimeoutError then, whatever the end of the connection did to the block.
    """
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        end()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if not expired.is_set():
            raise
    finally:
        timer.cancel()
    if expired.is_set():
        raise TimeoutError("the response takes too long")


def _shut_down(connection: socket.socket | None) -> None:
    """End a connection that another thread reads from; below TLS, whose objects are not shared between threads."""
    inner = getattr(connection, "socket", connection)  # TLS within TLS: urllib3's SSLTransport
    if isinstance(inner, socket.socket):
        with contextlib.suppress(OSError):
            socket.socket.shutdown(inner, socket.SHUT_RDWR)


def _connect(connection: HTTPConnection, guard: AddressGuard) -> socket.socket:
    """Connect to the first address that answers. Raises urllib3's errors and SourceError."""
    host, port = connection.host, connection.port
    try:
        addresses = guard.addresses(host, port)
    except socket.gaierror as error:
        raise NameResolutionError(host, connection, error) from error
    failure = OSError("the name has no address")
    for address in addresses:
        try:
            made = create_connection((address, port), connection.timeout, None, connection.socket_options)
        except OSError as error:
            failure = error
            continue
        guard.connected(host, port, address=address)
        return made
    if isinstance(failure, TimeoutError):
        raise ConnectTimeoutError(connection, "timed out") from failure
    raise NewConnectionError(connection, str(failure)) from failure


class Response:
    """Response whose body is not read yet. ``headers`` have lower-case names; ``length`` is that of the body."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, url: HttpUrl, proxy: ProxyServer | None, *, chunk_timeout: float
    ) -> None:
        self._response = response
        self._chunk_timeout = chunk_timeout
        self._proxy = proxy
        self.url = url
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): text for name, text in response.headers.itermerged()}
        self.length: int | None = response.length_remaining

    def read(self, limit: int) -> bytes:
        """Return what has arrived, at most ``limit`` bytes, nothing at the end. Raises TransientError."""
        try:
            return self._response.read1(limit, decode_content=False) or b""
        except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise converted(error, self.url, self._proxy) from None

    def readinto(self, buffer: memoryview) -> int:
        """Read what has arrived into the buffer and return the number of bytes, 0 at the end. Raises TransientError.

        The bytes of a body with a length go from the socket into the buffer without a copy; urllib3's ``readinto``
        makes two. The end is reported as such also when it comes too early.
        """
        stream: http.client.HTTPResponse = self._response._original_response  # type: ignore[attr-defined]
        try:
            if stream.fp is None or stream.length == 0 or not len(buffer):
                return 0
            if stream.chunked or stream.length is None:
                return self._read_chunk(stream, buffer)
            count = stream.fp.readinto1(buffer[: stream.length])
            stream.length -= count
            if not count or not stream.length:
                stream.close()
            return count
        except (http.client.HTTPException, OSError, ValueError) as error:
            self.close()
            raise converted(error, self.url, self._proxy) from None

    def _read_chunk(self, stream: http.client.HTTPResponse, buffer: memoryview) -> int:
        with self.limited(self._chunk_timeout):
            data = stream.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def limited(self, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Return a block after which the response ends if it takes longer."""
        return _limited(seconds, self._shut_down)

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # it has ended
            self._response.shutdown()

    def discard(self) -> None:
        """Close the response; its connection is kept if the rest of the body is there."""
        if self.length is not None and self.length <= _DRAINED:
            with contextlib.suppress(TransientError):
                self.read(_DRAINED)
        self.close()

    def close(self) -> None:
        if not self._response.closed:
            self._response.close()
        self._response.release_conn()


class Connections:
    """Sends single requests by the settings; thread-safe."""

    def __init__(self, settings: NetworkSettings, resolve: Resolve = resolve_name) -> None:
        self._settings = settings
        self._authorities = Authorities(settings.ca_bundle)
        self._head_timeout = 2 * settings.stall_timeout
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None
        self._managers: dict[tuple[ProxyServer | None, bool], urllib3.PoolManager] = {}
        self.peers = AddressGuard(private=True, resolve=resolve)
        self._public = AddressGuard(private=False, peers=self.peers, resolve=resolve)

    def send(
        self,
        method: str,
        url: HttpUrl,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        proxy: ProxyServer | None,
        private: bool = True,
    ) -> Response:
        """Send a request and return its response, whatever its status.

        Without ``private``, a name with private addresses is refused when it is connected to directly. Raises
        SourceError and TransientError.
        """
        manager = self._manager(proxy, private=private or proxy is not None)
        try:
            pool = manager.connection_from_host(url.host, url.port, url.scheme)
            try:
                response = _exchange(pool, method, url, headers=headers, body=body)
            except ProtocolError as error:
                # The server may close a kept connection at the moment of the request (RFC 9112 section 9.3.1).
                if method not in _IDEMPOTENT or not isinstance(error.args[-1], ConnectionError):
                    raise
                response = _exchange(pool, method, url, headers=headers, body=body)
        except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise converted(error, url, proxy) from None
        return Response(response, url, proxy, chunk_timeout=self._head_timeout)

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            self._clear()

    def _manager(self, proxy: ProxyServer | None, *, private: bool) -> urllib3.PoolManager:
        """Return the pools for a route. All are replaced when the authorities have changed."""
        context = self._authorities.context()
        with self._lock:
            if context is not self._context:
                self._clear()
                self._context = context
            key = proxy, private
            if key not in self._managers:
                self._managers[key] = self._new_manager(proxy, context, private=private)
            return self._managers[key]

    def _new_manager(self, proxy: ProxyServer | None, context: ssl.SSLContext, *, private: bool) -> urllib3.PoolManager:
        settings = self._settings
        timeout = urllib3.Timeout(connect=settings.connect_timeout, read=settings.stall_timeout)
        shared: dict[str, Any] = {
            "num_pools": POOLS,
            "maxsize": settings.connections,
            "block": True,
            "timeout": timeout,
            "ssl_context": context,
        }
        guard = None if proxy is not None else self.peers if private else self._public
        if proxy is None:
            manager = urllib3.PoolManager(**shared)
        else:
            sent = {"proxy-authorization": proxy.authorization} if proxy.authorization else {}
            manager = urllib3.ProxyManager(proxy.url, proxy_headers=sent, proxy_ssl_context=context, **shared)
        manager.pool_classes_by_scheme = _pool_classes(guard, self._head_timeout)
        return manager

    def _clear(self) -> None:
        for manager in self._managers.values():
            manager.clear()
        self._managers.clear()


def _exchange(
    pool: HTTPConnectionPool, method: str, url: HttpUrl, *, headers: Mapping[str, str], body: bytes | None
) -> urllib3.BaseHTTPResponse:
    return pool.urlopen(
        method,
        url.target,
        body=body,
        headers=headers,
        retries=False,
        redirect=False,
        assert_same_host=False,
        pool_timeout=MAX_POOL_WAIT,  # type: ignore[arg-type]
        preload_content=False,
        decode_content=False,
    )


def _pool_classes(checked_by: AddressGuard | None, limit: float) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(_Connection):
        guard = checked_by
        head_timeout = limit

    class Tls(_TlsConnection):
        guard = checked_by
        head_timeout = limit

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}
