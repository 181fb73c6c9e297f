"""Set-up of metrics server, access log and tracing.

Metrics have a separate port: they name every Model, and a scrape must not wait behind clients above the connection
limit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corral_core.base.errors import InvalidSetting
from corral_core.base.exposition import Metric, MetricSource, expose
from corral_core.base.process_metrics import process_families
from corral_core.base.settings import bool_setting, int_setting, str_setting
from corral_server.gateway import log
from corral_server.gateway.http_server.internal_server import Receive, Scope, Send, internal_server, send_response
from corral_server.gateway.observability.access_log import AccessLog
from corral_server.gateway.observability.audit_log import AuditLog
from corral_server.gateway.observability.request_metrics import RequestObserver

if TYPE_CHECKING:
    from corral_server.gateway.observability.tracing import RequestTracer

PATH = "/metrics"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """``metrics_port`` 0 disables metrics. ``access_log`` is the maximum of lines per second; 0 disables the log.

    ``audit_log``: whether to log each request with an API key.
    """

    metrics_port: int = 0
    access_log: int = 20
    audit_log: bool = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, access_log: int = 20) -> MonitoringSettings:
        """Raises InvalidSetting."""
        return cls(
            metrics_port=int_setting(environ, "CORRAL_METRICS_PORT", default=0, minimum=0, maximum=65535),
            access_log=int_setting(environ, "CORRAL_ACCESS_LOG", default=access_log, minimum=0),
            audit_log=bool_setting(environ, "CORRAL_AUDIT_LOG", default=False),
        )


@asynccontextmanager
async def open_observers(
    settings: MonitoringSettings, environ: Mapping[str, str], *, write: Callable[..., None] = log.event
) -> AsyncIterator[Sequence[RequestObserver]]:
    """Yield the observers of completed requests. ``write`` writes the lines of access log and audit log.

    Raises InvalidSetting if tracing is configured but not installed.
    """
    observers: list[RequestObserver] = [AccessLog(settings.access_log, write=write)] if settings.access_log else []
    if settings.audit_log:
        observers.append(AuditLog(write=write))
    tracing = _tracing(environ)
    if tracing is None:
        yield observers
        return
    try:
        yield [*observers, tracing]
    finally:
        await asyncio.to_thread(tracing.close)


def _tracing(environ: Mapping[str, str]) -> RequestTracer | None:
    """Import and create the tracer if it is configured."""
    endpoints = [name for name in _ENDPOINTS if str_setting(environ, name)]
    if not endpoints or bool_setting(environ, "OTEL_SDK_DISABLED", default=False):
        return None
    try:
        from corral_server.gateway.observability import tracing
    except ImportError as error:
        raise InvalidSetting(f"{endpoints[0]} is set, but corral[tracing] is not installed: {error}") from error
    tracing.check_protocol(environ)
    return tracing.RequestTracer()


@asynccontextmanager
async def metrics_server(settings: MonitoringSettings, host: str, *sources: MetricSource) -> AsyncIterator[int]:
    """Serve metrics until the block ends; yields the port, 0 if disabled. Raises InvalidSetting."""
    async with contextlib.AsyncExitStack() as stack:
        port = 0
        if settings.metrics_port:
            server = metrics_at(host, settings.metrics_port, *sources)
            port = await stack.enter_async_context(server)
        yield port


@asynccontextmanager
async def metrics_at(host: str, port: int, *sources: MetricSource) -> AsyncIterator[int]:
    """Serve metrics at a given port; 0 lets the system choose."""

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] != PATH or scope["method"] not in ("GET", "HEAD"):
            await send_response(send, 404, b"not found", "text/plain")
            return
        accept = ", ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"accept")
        body, content_type = await _exposition((process_families, *sources), accept)
        await send_response(send, 200, body, content_type)

    async with internal_server(app, host, port, setting="CORRAL_METRICS_PORT") as bound:
        yield bound


async def _exposition(sources: Iterable[MetricSource], accept: str) -> tuple[bytes, str]:
    """Return the exposition in an accepted format and its content type.

    The families are built on the event loop, where their numbers change, one at a time, and encoded in a thread. With a
    thousand Models an exposition has 120,000 lines, whose encoding takes 0.6 s (text) to 1 s (OpenMetrics) of CPU time;
    streams continue meanwhile.
    """
    families: list[Metric] = []
    for source in sources:
        for family in source():
            families.append(family)
            await asyncio.sleep(0)
    return await asyncio.to_thread(expose, [lambda: families], accept)
