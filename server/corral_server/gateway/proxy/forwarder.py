"""Forwards a request to a runner and relays the response: the one path of every forwarded request.

- A request is sent again only while nothing of a response has arrived and the runner cannot have begun it.
- Its slot is given back with the last byte that the runner sends, however slowly the client reads.
- A client that disconnects ends the request wherever it is. That says nothing about the runner.
"""

from __future__ import annotations

import asyncio
import functools

from corral_core.contracts.model_identity import MISDIRECTED
from corral_server.gateway.directory.directory import Endpoint, ModelEntry
from corral_server.gateway.http_server.exchange import DisconnectScope
from corral_server.gateway.messages import Request
from corral_server.gateway.proxy.headers import RequestHead, complete_head, reported_prompt_tokens
from corral_server.gateway.proxy.heartbeat import Heartbeat
from corral_server.gateway.proxy.read_pacing import ReadPacing
from corral_server.gateway.proxy.relay import relay, relay_after_heartbeats, relay_complete
from corral_server.gateway.proxy.request_limits import limits_of
from corral_server.gateway.proxy.retries import RetryBudget
from corral_server.gateway.queueing.dispatcher import Dispatcher
from corral_server.gateway.queueing.model_queue import PendingRequest
from corral_server.gateway.upstream.connection import (
    Interrupted,
    Misdirected,
    NotBegun,
    ReadTimeout,
    RunnerConnection,
    UpstreamError,
)
from corral_server.gateway.upstream.pool import ConnectionPool
from corral_server.wire import headers
from corral_server.wire.errors import RUNNER_STOPPED, ApiError
from corral_server.wire.request_limits import RequestLimits

RUNNER_SILENT = "the model sent nothing for longer than it may, please try again"


class Forwarder:
    """``attempts`` and ``unreachable_timeout`` (seconds) are those of RetryBudget; ``name`` identifies this gateway.

    ``limits`` count for Models without ``spec.requestLimits``. ``heartbeat`` is the interval of Heartbeat in seconds, 0
    for none.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        pool: ConnectionPool,
        *,
        name: str,
        attempts: int,
        unreachable_timeout: float,
        limits: RequestLimits,
        heartbeat: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._head = RequestHead(name)
        self._pacing = ReadPacing()
        self._attempts = attempts
        self._unreachable_timeout = unreachable_timeout
        self._limits = limits
        self._heartbeat = heartbeat

    async def forward(self, request: Request, entry: ModelEntry) -> None:
        """Answer the request through a runner of this Model.

        Raises ApiError or ModelDeleted while nothing but heartbeats was sent to the client; later failures end the
        response here.
        """
        limits = limits_of(entry, self._limits).within(request.limits)
        head = self._head.encode(request, len(request.body), limits=limits)
        pending = self._dispatcher.submit(entry, request.namespace, num_ctx=request.num_ctx)
        if request.metrics is not None:
            request.metrics.pending = pending
        beating = self._heartbeat > 0 and request.stream_type != b""
        heartbeat = Heartbeat(request, self._heartbeat) if beating else None
        try:
            with DisconnectScope(request.exchange):
                endpoint, connection = await self._send(request, pending, head)
                try:
                    if heartbeat is not None:
                        heartbeat.stop()
                    if request.only_heartbeats:
                        await relay_after_heartbeats(request, connection, self._pacing)
                    elif not relay_complete(request, connection):
                        await relay(request, connection, self._pacing)
                finally:
                    self._pool.release(endpoint.host, endpoint.port, connection)
        finally:
            if heartbeat is not None:
                heartbeat.stop()
            self._dispatcher.finish(pending)

    async def _send(self, request: Request, pending: PendingRequest, head: bytes) -> tuple[Endpoint, RunnerConnection]:
        """Send the request until a runner begins it; return the connection on which the response has begun.

        Raises ApiError or ModelDeleted.
        """
        retries = RetryBudget(self._attempts, self._unreachable_timeout)
        while True:
            endpoint = pending.endpoint or await self._dispatcher.wait_for_slot(pending)
            if request.metrics is not None:
                request.metrics.forwarded = True
            connection: RunnerConnection | None = None
            pending.interrupt = None
            try:
                connection = self._idle_connection(pending, endpoint) or await self._connect(pending, endpoint)
                pending.interrupt = connection.interrupt
                connection.send(complete_head(head, pending.arrived_at, model=endpoint.model), request.body)
                while not connection.response_begun:
                    await connection.next_event()
                _require_own_runner(connection)
            except asyncio.CancelledError:
                if connection is not None:
                    connection.abort()  # the runner sees that the response is not wanted
                raise
            except NotBegun as not_begun:
                if retries.exhausted(not_begun):
                    raise ApiError(500, RUNNER_STOPPED) from None
                self._dispatcher.requeue(pending, unreachable=True, misdirected=isinstance(not_begun, Misdirected))
                continue
            except UpstreamError as failure:  # a name of its own: compiled, a variable has one type
                if isinstance(failure, Interrupted):
                    raise ApiError(503, str(failure), retry_after=1) from None
                self._dispatcher.record_failure(pending)
                if isinstance(failure, ReadTimeout):
                    raise ApiError(504, RUNNER_SILENT) from None
                raise ApiError(500, RUNNER_STOPPED) from None
            if not _not_ready(connection):
                self._response_begun(request, pending, connection)
                return endpoint, connection
            self._pool.release(endpoint.host, endpoint.port, connection)
            self._dispatcher.requeue(pending, unreachable=False)

    def _idle_connection(self, pending: PendingRequest, endpoint: Endpoint) -> RunnerConnection | None:
        """Return an idle connection, None for a half-open endpoint: only a new one proves that the runner is there."""
        half_open = pending.assigned is not None and pending.assigned.half_open
        return None if half_open else self._pool.take_idle(endpoint.host, endpoint.port)

    async def _connect(self, pending: PendingRequest, endpoint: Endpoint) -> RunnerConnection:
        """Return a new connection. Raises Unreachable."""
        connection = await self._pool.connect(endpoint.host, endpoint.port)
        self._dispatcher.confirm_reachable(pending)
        return connection

    def _response_begun(self, request: Request, pending: PendingRequest, connection: RunnerConnection) -> None:
        self._dispatcher.record_success(pending)
        if request.metrics is not None and request.metrics.api_key:
            request.metrics.prompt_tokens = reported_prompt_tokens(connection)
        request.release_body()
        if connection.complete:
            self._dispatcher.finish(pending)
        elif connection.broken:
            self._response_ended(pending, connection)
        else:
            connection.on_end = functools.partial(self._response_ended, pending)

    def _response_ended(self, pending: PendingRequest, connection: RunnerConnection) -> None:
        """Give the slot back: the runner sends nothing more."""
        if connection.broken:
            self._dispatcher.record_failure(pending)
        self._dispatcher.finish(pending)


def _require_own_runner(connection: RunnerConnection) -> None:
    """Raise Misdirected if the runner refused the request because it serves another Model."""
    if connection.status == MISDIRECTED:
        connection.abort()
        raise Misdirected("the address belongs to a runner of another Model")


def _not_ready(connection: RunnerConnection) -> bool:
    """Whether the runner declined the request without beginning it: it is loading, or draining."""
    return connection.status == 503 and any(name == headers.RETRY for name, _ in connection.headers)
