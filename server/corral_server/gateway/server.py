"""uvicorn's server for the gateway: configuration and graceful shutdown.

Order of a shutdown:

1. On SIGTERM the readiness probe fails immediately. New connections are still accepted for ``drain_delay``, in which
   load balancers notice the failed probe. From now on each response is its connection's last, so that clients connect
   to another gateway.
2. The listening sockets close. Queued and running requests continue until the drain timeout.
3. Requests that remain get an error in the format of their API.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import resource
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import cast

import uvicorn

from corral_core.base.exposition import Metric, gauge
from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.http_server.connection import ClientConnection
from corral_server.gateway.http_server.limits import ERROR_CONNECTIONS
from corral_server.gateway.http_server.tls import HandshakeCount, server_context
from corral_server.gateway.messages import TEXT_TYPE, Response
from corral_server.gateway.upstream.tcp import set_client_keepalive

ERROR_TIME = 2.0
"""Seconds to write the errors to the requests that remain after the drain."""
_POLL_INTERVAL = 0.1
BACKLOG = 4096


def tune_garbage_collector() -> None:
    """Run the cycle collector rarely: a request leaves no cycles behind, and the objects of start-up stay anyway."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def raise_open_file_limit() -> None:
    """Raise the soft limit of open files to the hard limit, as every process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit than it reports
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class GatewayServer(uvicorn.Server):
    """uvicorn's server with the shutdown that the module's docstring describes; it starts and closes the gateway."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, *, drain_delay: float = 0.0) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._drain_delay = drain_delay
        self._handshakes = gateway.handshakes
        self._handshakes.is_full = self._is_full

    @property
    def open_connections(self) -> int:
        """Client connections, those in their TLS handshake included."""
        return len(self.server_state.connections) + self._handshakes.count

    def _is_full(self) -> bool:
        return self.open_connections >= self._gateway.limits.connections + ERROR_CONNECTIONS

    def families(self) -> Iterator[Metric]:
        """Metrics of connections; those of requests are ``Gateway.families``."""
        count, limit = self.open_connections, self._gateway.limits.connections
        text = "Open client connections, those in their TLS handshake included."
        yield gauge("corral_gateway_connections", text, [({}, count)])
        yield gauge("corral_gateway_connection_limit", "Maximum number of client connections.", [({}, limit)])

    def readiness(self) -> Response:
        """Return the response to a readiness probe on a port of its own, which listens before the API port."""
        return self._gateway.readiness() if self.started else Response(503, b"the gateway is starting", TEXT_TYPE)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        self._gateway.start()
        for server in self.servers:
            for listener in server.sockets:
                set_client_keepalive(listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.drain()
        for _ in range(math.ceil(self._drain_delay / _POLL_INTERVAL)):
            if not self.force_exit:  # set by a second signal
                await asyncio.sleep(_POLL_INTERVAL)
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait(list(self.server_state.tasks), timeout=ERROR_TIME)
        await self._gateway.close()


def uvicorn_config(gateway: Gateway, config: GatewayConfig) -> uvicorn.Config:
    """One process, one event loop; responses carry the runner's headers and none of uvicorn's.

    uvicorn declares an ASGI application, but only its protocol class calls it, and that is the gateway's own.
    """
    return uvicorn.Config(
        cast("Callable[..., object]", gateway),
        interface="asgi3",
        ssl_context_factory=_context_factory(config, gateway.handshakes),
        host=config.host,
        port=config.port,
        loop="uvloop",
        http=cast(type[asyncio.Protocol], ClientConnection),  # by its methods
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=math.ceil(config.limits.idle_timeout),
        timeout_graceful_shutdown=math.ceil(config.drain_timeout),
    )


_ContextFactory = Callable[[uvicorn.Config, Callable[[], ssl.SSLContext]], ssl.SSLContext]


def _context_factory(config: GatewayConfig, handshakes: HandshakeCount) -> _ContextFactory | None:
    """Raises InvalidSetting for certificate files that cannot be used."""
    if config.tls is None:
        return None
    context = server_context(config.tls, handshakes)
    return lambda settings, default: context
