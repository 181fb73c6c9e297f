"""HTTP server of the runner: the application under uvicorn.

It is a module of its own so that it can be imported while the weights load: its imports take a fifth of a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn

from corral_server.runner.api.app import create_app
from corral_server.runner.lifecycle.state import RunnerState

CLOSE_TIMEOUT = 2
"""Seconds that connections have to close after the drain."""
IDLE_CONNECTION_TIMEOUT = 900
"""Seconds that an idle connection stays open.

It is longer than the gateway keeps an idle connection, so that the runner does not close one while a request arrives.
"""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers, because the runner drains before it stops the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def create_server(state: RunnerState) -> Server:
    config = uvicorn.Config(
        create_app(state),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_CONNECTION_TIMEOUT,
        timeout_graceful_shutdown=CLOSE_TIMEOUT,
    )
    return Server(config)
