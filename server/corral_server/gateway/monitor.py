"""What people and their monitors learn of a gateway: metrics at a port of their own, the access log, traces.

The port is apart from that of the clients: metrics name every Model, and a scrape shall not wait behind clients that
are over the limit of connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from corral_core.errors import InvalidSetting
from corral_core.metrics import CONTENT_TYPE, Collector, lines
from corral_core.process_metrics import process_families
from corral_core.settings import bool_setting, int_setting, text_setting
from corral_server.gateway import log
from corral_server.gateway.access_log import AccessLog
from corral_server.gateway.messages import Receive, Scope, Send
from corral_server.gateway.record import Sink
from corral_server.gateway.side import answer, side_server

if TYPE_CHECKING:
    from corral_server.gateway.tracing import Tracing

PATH = "/metrics"
SLICE = 500
"""Lines of an exposition that are made at a stretch, in less than a millisecond: streams go on between two of them."""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """``metrics_port`` 0: no metrics. ``access_log`` is lines a second at most, 0: none."""

    metrics_port: int = 0
    access_log: int = 20

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, access_log: int = 20) -> MonitorSettings:
        """Raises InvalidSetting."""
        return cls(
            metrics_port=int_setting(environ, "CORRAL_METRICS_PORT", default=0, minimum=0, maximum=65535),
            access_log=int_setting(environ, "CORRAL_ACCESS_LOG", default=access_log, minimum=0),
        )


@asynccontextmanager
async def open_sinks(
    settings: MonitorSettings, environ: Mapping[str, str], *, write: Callable[..., None] = log.event
) -> AsyncIterator[Sequence[Sink]]:
    """Who hears of requests that have ended; ``write`` writes the access log's lines.

    Raises InvalidSetting when tracing is asked for and not installed.
    """
    sinks: list[Sink] = [AccessLog(settings.access_log, write=write)] if settings.access_log else []
    tracing = _tracing(environ)
    if tracing is None:
        yield sinks
        return
    try:
        yield [*sinks, tracing]
    finally:
        await asyncio.to_thread(tracing.close)


def _tracing(environ: Mapping[str, str]) -> Tracing | None:
    """Imported only where it is asked for."""
    asked = [name for name in _ENDPOINTS if text_setting(environ, name)]
    if not asked or bool_setting(environ, "OTEL_SDK_DISABLED", default=False):
        return None
    try:
        from corral_server.gateway import tracing
    except ImportError as error:
        raise InvalidSetting(f"{asked[0]} is set, but corral[tracing] is not installed: {error}") from error
    tracing.check(environ)
    return tracing.Tracing()


@asynccontextmanager
async def metrics_server(settings: MonitorSettings, host: str, *collectors: Collector) -> AsyncIterator[int]:
    """Tells the metrics until the block ends; gives the port, 0 for none. Raises InvalidSetting."""
    async with contextlib.AsyncExitStack() as stack:
        port = 0
        if settings.metrics_port:
            server = metrics_at(host, settings.metrics_port, *collectors)
            port = await stack.enter_async_context(server)
        yield port


@asynccontextmanager
async def metrics_at(host: str, port: int, *collectors: Collector) -> AsyncIterator[int]:
    """The same at a given port; 0 lets the system choose."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] != PATH or scope["method"] not in ("GET", "HEAD"):
            await answer(send, 404, b"not found", "text/plain")
            return
        await answer(send, 200, await _told((process_families, *collectors)), CONTENT_TYPE)

    async with side_server(app, host, port, setting="CORRAL_METRICS_PORT") as bound:
        yield bound


async def _told(collectors: Iterable[Collector]) -> bytes:
    """The exposition; with a thousand Models it has a hundred thousand lines."""
    parts = []
    rows = lines(collectors)
    while part := list(islice(rows, SLICE)):
        parts.append("\n".join(part).encode())
        await asyncio.sleep(0)
    return b"\n".join((*parts, b""))
