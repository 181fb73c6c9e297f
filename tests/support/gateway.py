"""Gateway under uvicorn in the event loop of the test, with an in-memory directory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import uvloop

from corral_core.base.names import canonical_name
from corral_core.model.model import Model, ModelSpec
from corral_core.model.name_index import EVERYWHERE, NameIndex, Scope
from corral_server.gateway.app import Gateway
from corral_server.gateway.auth.key_store import KeyStore
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory.directory import Directory, Endpoint, FoundModel, ModelEntry, ObservedState
from corral_server.gateway.management.management import Management
from corral_server.gateway.observability.request_metrics import RequestObserver
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.server import GatewayServer, uvicorn_config
from tests.support.fake_upstream import Behaviour, FakeUpstream, fake_upstream
from tests.support.sample_metadata import SMOLLM2_METADATA
from tests.support.waiting import auntil

METADATA = replace(SMOLLM2_METADATA, size=98_000_000, context_length=2048, template="{{ messages }}")


def run(coroutine: Coroutine[object, object, None]) -> None:
    """Run a coroutine on uvloop, as in production, with a timeout."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(coroutine, 60))


def entry(name: str = "tiny", *ports: int, slots: int = 4, **changes: object) -> ModelEntry:
    """Return a Model with runners on these loopback ports."""
    spec = ModelSpec(source="file:///weights/tiny.gguf")
    model = Model(name=name, namespace="default", created=1.0, generation=1, uid=f"uid-{name}", spec=spec)
    value = ModelEntry(
        model=model,
        names=(canonical_name(name),),
        digest="ab" * 32,
        modified=1_750_000_000.25,
        metadata=METADATA,
        endpoints=tuple(endpoint(port, slots) for port in ports),
    )
    return replace(value, **changes)  # type: ignore[arg-type]  # the test names the fields


def endpoint(port: int, slots: int = 4) -> Endpoint:
    return Endpoint(id=f"runner-{port}", host="127.0.0.1", port=port, slots=slots)


@dataclass
class MemoryDirectory:
    """Directory that a test edits; ``demands`` and ``pulls`` record all reports of demand and of pulls in order."""

    by_key: dict[str, ModelEntry] = field(default_factory=dict)
    demands: list[tuple[str, int, float | None]] = field(default_factory=list)
    pulls: list[tuple[str, bool]] = field(default_factory=list)
    contexts: list[tuple[str, int]] = field(default_factory=list)
    ready: bool = True
    shared: tuple[str, ...] = ()
    states: dict[str, ObservedState] = field(default_factory=dict)
    _listeners: list[Callable[[str], None]] = field(default_factory=list)

    @classmethod
    def of(cls, *entries: ModelEntry) -> MemoryDirectory:
        return cls({item.key: item for item in entries})

    def put(self, value: ModelEntry) -> None:
        self.by_key[value.key] = value
        self._notify(value.key)

    def change(self, key: str = "default/tiny", **changes: object) -> None:
        self.put(replace(self.by_key[key], **changes))  # type: ignore[arg-type]  # the test names the fields

    def remove(self, key: str = "default/tiny") -> None:
        del self.by_key[key]
        self._notify(key)

    def find(self, name: str, scope: Scope = EVERYWHERE) -> FoundModel | None:
        found = self._index().find(name, scope)
        return FoundModel(self.by_key[found.key], found.name) if found is not None else None

    def sees(self, scope: Scope, namespace: str) -> bool:
        return NameIndex(self.shared).sees(scope, namespace)

    def displayed_names(self, key: str, scope: Scope) -> tuple[str, ...]:
        return self._index().displayed_names(key, scope)

    def _index(self) -> NameIndex:
        index = NameIndex(self.shared)
        for item in self.by_key.values():
            spec = item.model.spec.model_copy(update={"names": item.names, "adapters": ()})
            index.put(replace(item.model, spec=spec))
        return index

    def get(self, key: str) -> ModelEntry | None:
        return self.by_key.get(key)

    def observed(self, key: str) -> ObservedState | None:
        ready = self.by_key[key].endpoints if key in self.by_key else ()
        return self.states.get(key) or ObservedState("Ready" if ready else "Idle", "", ready=len(ready))

    def entries(self) -> Sequence[ModelEntry]:
        return tuple(self.by_key.values())

    def subscribe(self, changed: Callable[[str], None]) -> None:
        self._listeners.append(changed)

    def report_demand(self, key: str, pending: int, oldest: float | None) -> None:
        self.demands.append((key, pending, oldest))

    def want_context(self, key: str, length: int) -> None:
        self.contexts.append((key, length))

    def want_pull(self, key: str, wanted: bool) -> None:
        self.pulls.append((key, wanted))

    def synced(self) -> bool:
        return self.ready

    def _notify(self, key: str) -> None:
        for listener in self._listeners:
            listener(key)


@dataclass
class RunningGateway:
    """A running gateway and a client for it."""

    gateway: Gateway
    server: GatewayServer
    port: int
    http: httpx.AsyncClient

    @property
    def pending(self) -> int:
        return self.gateway.dispatcher.pending

    async def chat(self, model: str = "tiny", *, path: str = "/api/chat", **fields: object) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
        return await self.http.post(path, json=body)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def until_pending(self, number: int) -> None:
        await auntil(lambda: self.pending == number, what=f"{number} pending requests (now {self.pending})")


def raw_request(
    path: str = "/api/chat", body: bytes = b'{"model":"tiny"}', *headers: str, method: str = "POST"
) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def running_gateway(
    directory: Directory,
    *,
    drain: float = 10.0,
    host: str = "0.0.0.0",
    peers: Peers | None = None,
    observers: Sequence[RequestObserver] = (),
    keys: KeyStore | None = None,
    management: Management | None = None,
    **settings: object,
) -> AsyncIterator[RunningGateway]:
    """Serve on a free loopback port until the block ends, then drain.

    ``host`` is only the configured address, which decides whether the Host header is checked.
    """
    gateway_config = GatewayConfig(host=host, drain_timeout=drain, **settings)  # type: ignore[arg-type]  # named by the test
    gateway = Gateway(directory, gateway_config, peers, observers=observers, keys=keys, management=management)
    config = uvicorn_config(gateway, gateway_config)
    listener = socket.create_server(("127.0.0.1", 0))
    server = GatewayServer(config, gateway)
    port = listener.getsockname()[1]
    task = asyncio.create_task(server._serve(sockets=[listener]))
    timeout = httpx.Timeout(30.0)
    try:
        await auntil(lambda: server.started, what="the gateway listens")
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=timeout, trust_env=False, limits=limits
        ) as http:
            yield RunningGateway(gateway, server, port, http)
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def gateway_with_upstream(
    behaviour: Behaviour | None = None, *script: Behaviour, slots: int = 4
) -> AsyncIterator[tuple[FakeUpstream, RunningGateway]]:
    """Run a gateway with one Model, ``tiny``, and one fake runner."""
    async with (
        fake_upstream(behaviour, *script) as upstream,
        running_gateway(MemoryDirectory.of(entry("tiny", upstream.port, slots=slots))) as gateway,
    ):
        yield upstream, gateway
