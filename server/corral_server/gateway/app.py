"""The gateway: resolves a request's model, admits the request or rejects it, queues it, and forwards it to a runner.

- Of a request it interprets ``model`` and what admission needs; it never re-encodes a response.
- What is known without a runner it answers itself.
- Everything runs on one event loop. On shutdown the server stops accepting and running requests end first; then timers
  and connections to runners are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator, Mapping, Sequence

from corral_core.base.exposition import Metric
from corral_server.gateway.api import metadata
from corral_server.gateway.api.forwarded import APIS, Api
from corral_server.gateway.api.handlers import ModelHandlers, Readiness, route_table
from corral_server.gateway.api.management import ManagementHandlers
from corral_server.gateway.api.request_body import BodyReader
from corral_server.gateway.api.request_checks import RequestChecks
from corral_server.gateway.api.routes import Handler, Routes
from corral_server.gateway.api.unload import is_unload, keep_alive_without_content, unload
from corral_server.gateway.auth.authenticator import Authenticator
from corral_server.gateway.auth.authorized_directory import AuthorizedDirectory
from corral_server.gateway.auth.key_store import KeyStore
from corral_server.gateway.bodies.json_body import field, requested_context
from corral_server.gateway.bodies.memory import BodyMemory
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory.directory import Directory
from corral_server.gateway.http_server.exchange import ClientDisconnected, Exchange
from corral_server.gateway.http_server.states import IDLE
from corral_server.gateway.http_server.tls import HandshakeCount
from corral_server.gateway.management.management import Management
from corral_server.gateway.messages import Request, Response, error_response, json_response, send_response
from corral_server.gateway.observability.request_metrics import RequestObserver
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.peers.runner_status import RunnerStatusFollower
from corral_server.gateway.proxy.forwarder import Forwarder
from corral_server.gateway.proxy.heartbeat import end_with_error
from corral_server.gateway.proxy.relay import SHUTTING_DOWN
from corral_server.gateway.queueing.dispatcher import Dispatcher, ModelDeleted
from corral_server.gateway.queueing.slot_shares import SlotShares
from corral_server.gateway.request_observation import RequestObservation
from corral_server.gateway.ui.page import Page
from corral_server.gateway.upstream.pool import ConnectionPool
from corral_server.gateway.upstream.read_timeout import connection_factory
from corral_server.wire.errors import ApiError

_NO_RATE_LIMIT = contextlib.nullcontext()


class Gateway:
    """The application that the HTTP server serves (http_server.connection.Application), on one event loop.

    ``peers`` are the other gateway replicas, if there may be any; ``observers`` get the metrics of each completed
    request. ``keys`` are the API keys, by default those of the configured file. ``management`` makes, changes and
    deletes Models for clients, which are refused without it. ``dispatcher`` is public because metrics and usage
    reports read its queue. ``paths`` are the served paths. ``page`` is None if the page is switched off.
    """

    def __init__(
        self,
        directory: Directory,
        config: GatewayConfig,
        peers: Peers | None = None,
        *,
        observers: Sequence[RequestObserver] = (),
        keys: KeyStore | None = None,
        management: Management | None = None,
    ) -> None:
        self._management = management
        self._has_peers = peers is not None
        peers = peers or Peers(config.gateway_id)
        keys = keys or (KeyStore(config.keys_file) if config.keys_file else None)
        self._authenticator = Authenticator(keys, peers=peers) if keys is not None else None
        self._authorized = AuthorizedDirectory(directory) if self._authenticator is not None else None
        self._directory = self._authorized or directory
        self._prefix = config.path_prefix
        self._checks = RequestChecks(config.origins, host=config.host)
        self._memory = BodyMemory(config.body_limit, config.body_memory_limit)
        self._bodies = BodyReader(self._memory, config.depth_limit)
        self.limits = config.limits
        self.handshakes = HandshakeCount()
        shares = SlotShares(config.gateway_id, peers)
        own = (self._authenticator.observe,) if self._authenticator is not None else ()
        self._observing = RequestObservation(directory, *observers, *own)
        self.rejected_connections = self._observing.rejected_connections
        self.dispatcher = self._make_dispatcher(directory, config, peers=peers, shares=shares)
        if self._authenticator is not None:
            self._authenticator.publish_usage(self.dispatcher.queue.usage)
        peers.on_pending_change = refresh = self.dispatcher.refresh_capacity
        self._runners = RunnerStatusFollower(self.dispatcher.queue, peers, shares, on_status=refresh)
        make = connection_factory(config.upstream_read_timeout)
        self._pool = ConnectionPool(connect_timeout=config.connect_timeout, make=make)
        self._forwarder = self._make_forwarder(config)
        self._readiness = Readiness(self._directory)
        self.page = Page(self._directory, self.dispatcher.queue, peers, self._authenticator) if config.ui else None
        table = self._route_table(config.version)
        self.paths = frozenset(table)
        self._routes = Routes(table)

    def _make_dispatcher(
        self, directory: Directory, config: GatewayConfig, *, peers: Peers, shares: SlotShares
    ) -> Dispatcher:
        return Dispatcher(
            directory,
            self._observing.metrics,
            limit=config.max_queue,
            limits=config.queue_limits,
            weights=config.namespace_weights,
            peers=peers,
            capacity=shares.capacity,
        )

    def _make_forwarder(self, config: GatewayConfig) -> Forwarder:
        return Forwarder(
            self.dispatcher,
            self._pool,
            name=config.gateway_id,
            attempts=config.max_reset_retries,
            unreachable_timeout=config.connect_retry_timeout,
            limits=config.request_limits,
            heartbeat=config.heartbeat,
        )

    def _route_table(self, version: str) -> Mapping[str, Mapping[str, Handler]]:
        routes = route_table(
            ModelHandlers(self._directory, self._pool, self._bodies, self._authorized),
            self._management_handlers(),
            self._readiness,
            version=version,
            forward=self._forward,
        )
        return {**routes, **self.page.routes()} if self.page is not None else routes

    def _management_handlers(self) -> ManagementHandlers:
        return ManagementHandlers(
            self._directory,
            self._bodies.read_object,
            lambda: self._readiness.draining,
            management=self._management,
        )

    @property
    def draining(self) -> bool:
        """Whether the gateway is shutting down: it is not ready, and each response is its connection's last."""
        return self._readiness.draining

    def readiness(self) -> Response:
        """Return the response to a readiness probe."""
        return self._readiness.response()

    def start(self) -> None:
        """Follow the runners' status, where other gateways use them as well."""
        if self._has_peers:
            self._runners.start()

    def drain(self) -> None:
        self._readiness.draining = True
        if self.page is not None:
            self.page.drain()

    async def close(self) -> None:
        """Withdraw the demand and close idle connections."""
        self.dispatcher.shutdown()
        self._pool.close()
        await self._runners.close()
        if self.page is not None:
            await self.page.close()

    def families(self) -> Iterator[Metric]:
        """Metrics of requests."""
        yield from self._observing.families(self.dispatcher.queue)
        yield from self._memory.families()
        if self._authenticator is not None:
            yield from self._authenticator.families()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request. An error before the runner's response has the format of the API that was called."""
        request = Request(exchange, prefix=self._prefix)
        self._observing.start(request, self.paths)
        try:
            response = self._checks.check(request)
            if response is None:
                if self._authenticator is None:
                    response = await self._route(request)
                else:
                    response = await self._authenticator.authenticate(request, lambda: self._route(request))
            if response is not None:
                await send_response(request, response)
        except ApiError as error:
            await _send_error(request, error)
        except ModelDeleted:
            text = APIS[request.path].unknown.replace("{}", request.model)
            await _send_error(request, ApiError(404, text))
        except ClientDisconnected:
            return
        except asyncio.CancelledError:
            if request.only_heartbeats or (exchange.response_state is IDLE and not exchange.write_paused):
                await _send_error(request, ApiError(503, SHUTTING_DOWN, retry_after=1))
            raise
        finally:
            request.release_body()

    def _route(self, request: Request) -> Awaitable[Response | None]:
        """Call the handler of the request. It returns the response, or None after it has sent one itself."""
        handler = self._routes.find(request.method, request.path, request.exchange.query)
        return _constant(handler) if isinstance(handler, Response) else handler(request)

    async def _forward(self, request: Request) -> Response | None:
        """Handle a request to a model: unload it, or forward the request to one of its runners."""
        api = APIS[request.path]
        data = await self._bodies.read_object(request, api.go_type, api.empty_body)
        model = field(data, "model", kind=api.kind) or self._default_model(api)
        if not model:
            raise api.missing_model(data)
        keep_alive, num_ctx = keep_alive_without_content(api.path, data), requested_context(api.path, data)
        if data.get("stream") is True:
            request.stream_type = api.stream_type
        del data  # nothing else of the body is kept beside it
        if self._authorized is not None:
            self._authorized.authorize(model)
        found = metadata.lookup(self._directory, model, unknown=api.unknown)
        entry = found.entry
        with self._authenticator.limit_rate() if self._authenticator is not None else _NO_RATE_LIMIT:
            if is_unload(keep_alive):
                return json_response(await unload(self._pool, entry, api.path, model=model, body=request.body))
            request.model, request.model_name, request.num_ctx = model, found.name, num_ctx
            self._observing.set_model(request, entry)
            await self._forwarder.forward(request, entry)
            return None

    def _default_model(self, api: Api) -> str:
        """Return the name of the only Model that the client sees, empty where its API requires a name."""
        entries = self._directory.entries() if api.defaults_to_only_model else ()
        return entries[0].names[0] if len(entries) == 1 else ""


async def _constant(response: Response) -> Response:
    return response


async def _send_error(request: Request, error: ApiError) -> None:
    if request.only_heartbeats:
        end_with_error(request, error)
        return
    await send_response(
        request, error_response(request.path, error.status, error.message, retry_after=error.retry_after)
    )
