"""The gateway under uvicorn: how it listens, and what SIGTERM does.

On SIGTERM the listening sockets close first, so that nobody new comes; requests that are held or running go on until
the drain ends, and what is left then gets an error in its wire format.
"""

from __future__ import annotations

import gc
import math

import uvicorn

from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.front.connection import FrontConnection

IDLE_LIMIT = 75
"""Seconds that a client's idle connection is kept."""
BACKLOG = 4096


def rest_collector() -> None:
    """Lets the cycle collector look rarely: a request leaves no cycles behind, and start-up's objects stay anyway."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def uvicorn_config(gateway: Gateway, config: GatewayConfig) -> uvicorn.Config:
    """One process, one event loop; the answers carry the runner's headers and none of uvicorn's."""
    return uvicorn.Config(
        gateway,
        host=config.host,
        port=config.port,
        loop="uvloop",
        http=FrontConnection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_LIMIT,
        timeout_graceful_shutdown=math.ceil(config.drain_timeout),
    )
