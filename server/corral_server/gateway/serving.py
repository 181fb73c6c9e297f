"""The gateway under uvicorn: how it listens, and what SIGTERM does.

On SIGTERM readiness goes off at once, while new connections are still accepted: for ``drain_delay``, in which whoever
sends them here can notice. Each answer is then its connection's last, so that clients come back elsewhere. Then the
listening sockets close, so that nobody new comes; requests that are held or running go on until the drain ends, and
what is left then gets an error in its wire format.
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

from corral_core.metrics import Family, gauge
from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.front.connection import FrontConnection
from corral_server.gateway.front.tls import server_context
from corral_server.gateway.sockets import notice_vanished

LAST_WORDS = 2.0
"""Seconds in which the errors are written that end what is left when the drain is over."""
_TICK = 0.1
BACKLOG = 4096


def rest_collector() -> None:
    """Lets the cycle collector look rarely: a request leaves no cycles behind, and start-up's objects stay anyway."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def open_more_files() -> None:
    """Raises the soft limit of open files to the hard one, as every process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class DrainingServer(uvicorn.Server):
    """uvicorn with the order of ending that is at the top. ``gateway`` is told that it ends."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, *, delay: float) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._delay = delay

    def families(self) -> Iterator[Family]:
        """How many clients are connected; ``Gateway.families`` tells of their requests."""
        here, most = len(self.server_state.connections), self._gateway.limits.connections
        yield gauge("corral_gateway_connections", "Connections of clients.", [({}, here)])
        yield gauge("corral_gateway_connection_limit", "Connections of clients that there may be.", [({}, most)])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listener in server.sockets:
                notice_vanished(listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.draining = True
        connections: set[object] = {*self.server_state.connections}  # uvicorn names only its own protocols
        for connection in connections:
            if isinstance(connection, FrontConnection):
                connection.wind_down()
        for _ in range(math.ceil(self._delay / _TICK)):
            if not self.force_exit:  # a second signal does not wait
                await asyncio.sleep(_TICK)
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait(list(self.server_state.tasks), timeout=LAST_WORDS)


def uvicorn_config(gateway: Gateway, config: GatewayConfig) -> uvicorn.Config:
    """One process, one event loop; the answers carry the runner's headers and none of uvicorn's."""
    return uvicorn.Config(
        gateway,
        ssl_context_factory=_context_factory(config),
        host=config.host,
        port=config.port,
        loop="uvloop",
        http=cast(type[asyncio.Protocol], FrontConnection),  # by its methods
        ws="none",
        lifespan="on",
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


def _context_factory(config: GatewayConfig) -> _ContextFactory | None:
    """Raises InvalidSetting for files that cannot be used."""
    if config.tls is None:
        return None
    context = server_context(config.tls)
    return lambda settings, default: context
