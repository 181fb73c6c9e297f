"""The gateway as one plain ASGI application over a Directory.

It resolves the model's name, admits or refuses, queues in order, and relays; what is known without a runner it answers
itself. It looks at a request's ``model`` and no further, and never re-encodes a response. Everything runs on one event
loop; the order of shutting down is: the server stops accepting, running requests end, then the timers and the
connections to the runners are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from corral_core.errors import InvalidName
from corral_core.metrics import Family
from corral_server.gateway import metadata
from corral_server.gateway.apis import APIS, SHOW, Api
from corral_server.gateway.bodies import Bodies, Gone
from corral_server.gateway.body import field, parse_body
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory import Directory, Entry
from corral_server.gateway.encoding import plain_body
from corral_server.gateway.entrance import Entrance
from corral_server.gateway.express import LIMIT as EXPRESS_LIMIT
from corral_server.gateway.forward import Forwarder, answer_error, answer_shutdown
from corral_server.gateway.front.exchange import Exchange
from corral_server.gateway.keys.guard import Guard
from corral_server.gateway.keys.view import AllowedDirectory
from corral_server.gateway.messages import (
    TEXT_TYPE,
    Answer,
    Receive,
    Request,
    Scope,
    Send,
    json_answer,
    request_of,
    send_answer,
    without,
)
from corral_server.gateway.observing import Observing
from corral_server.gateway.peers.known import Peers
from corral_server.gateway.pool import Pool
from corral_server.gateway.record import Sink
from corral_server.gateway.registry import BLOBS, Registry
from corral_server.gateway.routes import Handler, Routes
from corral_server.gateway.routing.dispatch import Dispatcher, ModelGone
from corral_server.gateway.routing.runners import RunnersInUse
from corral_server.gateway.running import running
from corral_server.gateway.shares import Shares
from corral_server.gateway.silence import connections
from corral_server.gateway.skim import read_object
from corral_server.gateway.unload import lone_keep_alive, unload, unloads
from corral_server.gateway.verbose import verbose_show, wants_verbose
from corral_server.wire.errors import ApiError

_NO_CLOUD = "web search and web fetch are features of Ollama's cloud, which is disabled here"
_NO_AUDIO = "audio transcriptions are not supported here"
_NO_TURN = contextlib.nullcontext()


class Gateway:
    """One instance serves one event loop. ``dispatcher`` is public for those who observe the queue.

    ``peers`` are the other gateways that serve the same Models, if there may be any; ``sinks`` hear of every request
    that has ended.
    """

    def __init__(
        self, directory: Directory, config: GatewayConfig, peers: Peers | None = None, *, sinks: Sequence[Sink] = ()
    ) -> None:
        self._alone = peers is None
        peers = peers or Peers(config.gateway_id)
        self._guard = Guard(config.keys_file, elsewhere=peers) if config.keys_file else None
        self._directory = directory if self._guard is None else AllowedDirectory(directory)
        self._config = config
        self._prefix, self._depth_limit = config.path_prefix, config.depth_limit  # read for every request
        self._bodies = Bodies(config.body_limit, max(config.body_limit, config.bodies_limit))
        self._entrance = Entrance(config.origins, host=config.host)
        self.limits = config.limits
        self.draining = False
        shares = Shares(config.gateway_id, peers)
        self._observing = Observing(directory, *sinks)
        self.turned_away = self._observing.turned_away
        self.dispatcher = Dispatcher(
            directory,
            limit=config.max_queue,
            bounds=config.bounds,
            elsewhere=peers,
            allowance=shares.allowed,
            meters=self._observing.meters,
        )
        if self._guard is not None:
            self._guard.tell(self.dispatcher.queue.holding)
        peers.changed = recount = self.dispatcher.recount
        self._runners = RunnersInUse(self.dispatcher.queue, peers, shares, recount=recount)
        self._pool = Pool(connect_timeout=config.connect_timeout, make=connections(config.upstream_silence))
        self._forwarder = Forwarder(
            self.dispatcher,
            self._pool,
            name=config.gateway_id,
            tries=config.connect_tries,
            patience=config.connect_patience,
        )
        table = self._table()
        self._paths = frozenset(table)
        self._routes = Routes(table)

    def close(self) -> None:
        """Withdraws the demand and closes idle connections. Also done by the server's lifespan."""
        self.dispatcher.shutdown()
        self._pool.close()

    def families(self) -> Iterator[Family]:
        """The gateway's metrics."""
        yield from self._observing.families(self.dispatcher.queue)
        yield from self._bodies.families()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if not self._alone:
                    self._runners.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self.close()
                await self._runners.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_of(scope, receive, send, prefix=self._prefix)
        self._observing.begin(request, self._paths)
        await self._guarded(request, self._handle(request))

    async def _guarded(self, request: Request, work: Awaitable[Answer | None]) -> None:
        """Whatever goes wrong before the answer has begun becomes an error in the wire format of the path."""
        try:
            answer = await work
            if answer is not None:
                await send_answer(request, answer)
        except ApiError as error:
            await answer_error(request, error)
        except ModelGone:
            gone = APIS[request.path].unknown.replace("{}", request.model)
            await answer_error(request, ApiError(404, gone))
        except Gone:
            return
        except asyncio.CancelledError:
            if not request.started:
                await answer_shutdown(request)
            raise
        finally:
            request.let_go()

    async def _handle(self, request: Request) -> Answer | None:
        answer = self._entrance.admit(request)
        if answer is not None:
            return answer
        if self._guard is not None:
            return await self._guard.serve(request, lambda: self._routed(request))
        return await self._routed(request)

    async def _routed(self, request: Request) -> Answer | None:
        handler = self._routes.find(request.method, request.path, request.query)
        return handler if isinstance(handler, Answer) else await handler(request)

    def express(self, exchange: Exchange) -> bool:
        """The short way for a complete request; False, and nothing done, when it must go the usual one."""
        path = without(self._prefix, exchange.path)
        api = APIS.get(path)
        body = exchange.whole_body()
        if api is None or exchange.method != "POST" or len(body) > EXPRESS_LIMIT:
            return False
        request = _request_of(exchange, path)
        if self._entrance.admit(request) is not None or request.encoding:
            return False
        try:
            data = self._parse(api, body)
            model = field(data, "model", kind=api.kind)
            entry = self._directory.find(model) if model else None
            if entry is None or unloads(lone_keep_alive(api.path, data)):
                return False
            request.model = model
            if self._guard is not None:
                return self._send_guarded(self._guard, request, exchange, entry=entry, model=model, body=body)
            return self._send_at_once(request, exchange, entry, body)
        except (ApiError, InvalidName):
            return False

    def _send_guarded(
        self, guard: Guard, request: Request, exchange: Exchange, *, entry: Entry, model: str, body: bytes
    ) -> bool:
        return guard.at_once(request, model, lambda: self._send_at_once(request, exchange, entry, body))

    def _send_at_once(self, request: Request, exchange: Exchange, entry: Entry, body: bytes) -> bool:
        sent = self._forwarder.express(request, entry, body, exchange=exchange, resume=self._resume)
        if sent:
            self._observing.begin_for(exchange, request.path, entry)
        return sent

    def _resume(self, request: Request, work: Callable[[], Awaitable[None]]) -> None:
        assert request.exchange is not None  # only those with one go ahead without a coroutine
        request.exchange.go_on(lambda: self._guarded(request, work()))

    async def _forward(self, request: Request) -> Answer | None:
        api = APIS[request.path]
        request.body = plain_body(request, await self._bodies.read(request))
        model, keep_alive = await self._meant(api, request.body)
        if self._guard is not None:
            self._guard.check(model)
        entry = metadata.lookup(self._directory, model, unknown=api.unknown)
        with self._guard.turn() if self._guard is not None else _NO_TURN:
            return await self._send_on(request, entry, model=model, keep_alive=keep_alive)

    async def _meant(self, api: Api, body: bytes) -> tuple[str, object]:
        """The model, and ``lone_keep_alive``; nothing else of a body is kept beside it. Raises ApiError."""
        data = await self._skim(api, body)
        model = field(data, "model", kind=api.kind)
        if not model:
            raise api.missing_model(data)
        return model, lone_keep_alive(api.path, data)

    async def _send_on(self, request: Request, entry: Entry, *, model: str, keep_alive: object) -> Answer | None:
        api = APIS[request.path]
        if unloads(keep_alive):
            return json_answer(await unload(self._pool, entry, api.path, model=model, body=request.body))
        request.model = model
        self._observing.about(request.exchange, entry)
        await self._forwarder.forward(request, entry)
        return None

    def _parse(self, api: Api, body: bytes) -> Mapping[str, object]:
        return parse_body(body, kind=api.kind, depth_limit=self._depth_limit, empty=api.empty_body)

    async def _skim(self, api: Api, body: bytes) -> Mapping[str, object]:
        return await read_object(body, kind=api.kind, depth_limit=self._depth_limit, empty=api.empty_body)

    async def _read(self, request: Request, kind: str) -> Mapping[str, object]:
        body = await self._bodies.read(request)
        return await read_object(body, kind=kind, depth_limit=self._depth_limit, empty="missing request body")

    def _table(self) -> dict[str, dict[str, Handler]]:
        registry = Registry(self._directory, self._read)
        return {
            "/": {"GET": self._root, "HEAD": self._root},
            "/healthz": {"GET": self._root, "HEAD": self._root},
            "/readyz": {"GET": self._ready, "HEAD": self._ready},
            "/api/version": {"GET": self._version, "HEAD": self._version},
            "/api/status": {"GET": self._status},
            "/api/tags": {"GET": self._tags, "HEAD": self._tags},
            "/api/ps": {"GET": self._ps},
            "/api/show": {"POST": self._show},
            "/api/me": {"POST": self._account},
            "/api/signout": {"POST": self._account},
            "/api/experimental/model-recommendations": {"GET": self._recommendations},
            "/api/user/keys/*": {"DELETE": self._account},
            "/api/experimental/web_search": {"POST": self._cloud},
            "/api/experimental/web_fetch": {"POST": self._cloud},
            "/api/pull": {"POST": registry.pull},
            "/api/push": {"POST": registry.push},
            "/api/create": {"POST": registry.create},
            "/api/copy": {"POST": registry.copy},
            "/api/delete": {"DELETE": registry.delete},
            f"{BLOBS}*": {"POST": registry.blob, "HEAD": registry.blob},
            "/v1/audio/transcriptions": {"POST": self._audio},
            "/v1/models": {"GET": self._models},
            "/v1/models/*": {"GET": self._model},
            **{path: {"POST": self._forward} for path in APIS},
        }

    async def _root(self, request: Request) -> Answer:
        return Answer(200, b"Ollama is running", TEXT_TYPE)

    async def _ready(self, request: Request) -> Answer:
        if self.draining:
            return Answer(503, b"the gateway is shutting down", TEXT_TYPE)
        if self._directory.settled():
            return Answer(200, b"ready", TEXT_TYPE)
        return Answer(503, b"the models are not listed yet", TEXT_TYPE)

    async def _version(self, request: Request) -> Answer:
        return json_answer({"version": self._config.version})

    async def _status(self, request: Request) -> Answer:
        return json_answer({"cloud": {"disabled": True, "source": "env"}})

    async def _tags(self, request: Request) -> Answer:
        return json_answer(metadata.tags(self._directory))

    async def _ps(self, request: Request) -> Answer:
        return json_answer(await running(self._directory, self._pool))

    async def _show(self, request: Request) -> Answer | None:
        body = await self._bodies.read(request)
        data = await self._skim(SHOW, body)
        name = field(data, "model", kind=SHOW.kind) or field(data, "name", kind=SHOW.kind)
        if not name:
            raise SHOW.missing_model(data)
        if self._guard is not None:
            self._guard.check(name)
        system, agent = field(data, "system", kind=SHOW.kind), request.header(b"user-agent")
        shown = metadata.show(self._directory, name, system=system, user_agent=agent)
        entry = self._directory.find(name) if wants_verbose(data) else None
        if entry is not None and await verbose_show(self._pool, entry, request, body=body):
            return None
        return json_answer(shown)

    async def _models(self, request: Request) -> Answer:
        return json_answer(metadata.openai_models(self._directory))

    async def _model(self, request: Request) -> Answer:
        name = urllib.parse.unquote(request.path.removeprefix("/v1/models/"))
        return json_answer(metadata.openai_model(self._directory, name))

    async def _account(self, request: Request) -> Answer:
        raise ApiError(503, "account unavailable")

    async def _recommendations(self, request: Request) -> Answer:
        return json_answer({"recommendations": []})

    async def _cloud(self, request: Request) -> Answer:
        raise ApiError(403, _NO_CLOUD)

    async def _audio(self, request: Request) -> Answer:
        raise ApiError(501, _NO_AUDIO)


def _request_of(exchange: Exchange, path: str) -> Request:
    return Request(
        exchange.method,
        path,
        query=exchange.query,
        headers=exchange.headers,
        receive=exchange.receive,
        send=exchange.send,
        exchange=exchange,
    )
