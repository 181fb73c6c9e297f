"""The HTTP server of a runner: its routes under uvicorn.

A module of its own because it is imported while the weights already load: what it needs takes a fifth of a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn

from corral_server.runner.app import create_app
from corral_server.runner.state import RunnerState

GRACE = 2
"""Seconds that connections get to close after the drain."""
KEEP_ALIVE = 900
"""Seconds an unused connection stays open: longer than a gateway keeps one, so it is not closed under a request."""


class Server(uvicorn.Server):
    """uvicorn without its signal handling: the runner drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server_of(state: RunnerState) -> Server:
    config = uvicorn.Config(
        create_app(state),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    return Server(config)
