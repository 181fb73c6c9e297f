"""The page's paths: its files, which need no API key, and ``/ui/events``, which shows the Models that the key sees."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from corral_core.base.process_metrics import build_version
from corral_server.gateway.api.routes import Handler
from corral_server.gateway.auth.authenticator import CURRENT_KEY, Authenticator
from corral_server.gateway.auth.key_file import ApiKey
from corral_server.gateway.directory.directory import Directory
from corral_server.gateway.http_server.exchange import DisconnectScope, Exchange
from corral_server.gateway.messages import Request, Response, to_json
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.queueing.queue import RequestQueue
from corral_server.gateway.ui.event_streams import EventStream, EventStreams
from corral_server.gateway.ui.model_rows import ModelRows
from corral_server.gateway.ui.runner_samples import RunnerSamples
from corral_server.gateway.ui.static_files import StaticFiles
from corral_server.wire.event_stream import EVENT_STREAM, server_sent_event

COMMENT_INTERVAL: Final = 15.0
"""Seconds without an event after which a comment is sent, so that no proxy takes the stream for a dead one."""
SLOW_READER: Final = 30.0
"""Seconds after which a client that does not read its events is disconnected."""
_COMMENT: Final = b":\n\n"
_HEADERS: Final = [
    (b"content-type", EVENT_STREAM),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Page:
    """Handlers of the page. ``close`` is called on the event loop."""

    def __init__(
        self,
        directory: Directory,
        queue: RequestQueue,
        peers: Peers,
        authenticator: Authenticator | None,
        *,
        files: StaticFiles | None = None,
    ) -> None:
        self._files = files or StaticFiles()
        self._runners = RunnerSamples()
        self._models = ModelRows(directory, queue, peers, self._runners)
        is_valid = authenticator.is_valid if authenticator is not None else _no_keys
        self.streams = EventStreams(self._render, is_valid, self._follow_runners)
        self._version = build_version()

    def routes(self) -> Mapping[str, Mapping[str, Handler]]:
        files = self._files
        return {
            "/ui": {"GET": files.redirect, "HEAD": files.redirect},
            "/ui/": {"GET": files.index, "HEAD": files.index},
            "/ui/assets/*": {"GET": files.asset, "HEAD": files.asset},
            "/ui/events": {"GET": self.events},
        }

    def drain(self) -> None:
        """End the event streams: the pages connect to another gateway."""
        self.streams.close()

    async def close(self) -> None:
        self.streams.close()
        await self._runners.close()

    async def events(self, request: Request) -> Response | None:
        """Stream the state of the Models until the client disconnects, its key ends, or the gateway shuts down."""
        exchange = request.exchange
        with self.streams.open(CURRENT_KEY.get()) as stream, DisconnectScope(exchange):
            exchange.start_response(200, [*_HEADERS, *request.response_headers])
            await _send(exchange, stream)
        return None

    def _render(self, key: ApiKey | None) -> bytes:
        token = CURRENT_KEY.set(key)
        try:
            data = {"models": self._models.rows(), "version": self._version}
        finally:
            CURRENT_KEY.reset(token)
        return server_sent_event(to_json(data).decode(), "models")

    def _follow_runners(self, active: bool) -> None:
        """Follow the runners of all Models while there are streams, and none without."""
        token = CURRENT_KEY.set(None)
        try:
            self._runners.follow(self._models.endpoints() if active else ())
        finally:
            CURRENT_KEY.reset(token)


async def _send(exchange: Exchange, stream: EventStream) -> None:
    """Send events until the stream ends; drop the connection of a client that reads too slowly."""
    while not stream.ended:
        event = await stream.take(COMMENT_INTERVAL)
        try:
            async with asyncio.timeout(SLOW_READER):
                await exchange.drain()
        except TimeoutError:
            exchange.drop_connection()
            return
        if not stream.ended:
            exchange.write(event or _COMMENT)
    exchange.write(b"", last=True)


def _no_keys(key: ApiKey) -> bool:
    return False
