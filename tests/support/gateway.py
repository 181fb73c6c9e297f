"""A real gateway under a real uvicorn in the test's own event loop, over a directory in memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import httpx
import uvicorn
import uvloop

from corral_core.facts import ModelFacts
from corral_core.model import Model, ModelSpec
from corral_core.names import canonical
from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory import Directory, Endpoint, Entry
from corral_server.gateway.peers.known import Peers
from corral_server.gateway.record import Sink
from corral_server.gateway.serving import uvicorn_config
from tests.support.fake_upstream import Behaviour, FakeUpstream, fake_upstream
from tests.support.waiting import auntil

FACTS = ModelFacts(
    size=98_000_000,
    family="llama",
    families=("llama",),
    parameter_size="135M",
    parameter_count=134_515_008,
    quantization_level="Q4_1",
    context_length=2048,
    embedding_length=576,
    capabilities=("completion",),
    template="{{ messages }}",
    info={"general.architecture": "llama", "tokenizer.ggml.tokens": None},
)


def run(coroutine: Coroutine[object, object, None]) -> None:
    """Runs a test on the loop that the gateway has in production."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(coroutine, 60))


def entry(name: str = "tiny", *ports: int, slots: int = 4, **changes: object) -> Entry:
    """A Model with runners on these ports of loopback."""
    spec = ModelSpec(source="file:///weights/tiny.gguf")
    model = Model(name=name, namespace="default", created=1.0, generation=1, uid=f"uid-{name}", spec=spec)
    value = Entry(
        model=model,
        names=(canonical(name),),
        digest="ab" * 32,
        modified=1_750_000_000.25,
        facts=FACTS,
        endpoints=tuple(endpoint(port, slots) for port in ports),
    )
    return replace(value, **changes)  # type: ignore[arg-type]  # the test names the fields


def endpoint(port: int, slots: int = 4) -> Endpoint:
    return Endpoint(id=f"runner-{port}", host="127.0.0.1", port=port, slots=slots)


@dataclass
class MemoryDirectory:
    """A Directory that a test edits; ``demands`` is every statement of demand in order."""

    held: dict[str, Entry] = field(default_factory=dict)
    demands: list[tuple[str, int, float | None]] = field(default_factory=list)
    ready: bool = True
    _listeners: list[Callable[[str], None]] = field(default_factory=list)

    @classmethod
    def of(cls, *entries: Entry) -> MemoryDirectory:
        return cls({item.key: item for item in entries})

    def put(self, value: Entry) -> None:
        self.held[value.key] = value
        self._tell(value.key)

    def change(self, key: str = "default/tiny", **changes: object) -> None:
        self.put(replace(self.held[key], **changes))  # type: ignore[arg-type]  # the test names the fields

    def remove(self, key: str = "default/tiny") -> None:
        del self.held[key]
        self._tell(key)

    def find(self, name: str) -> Entry | None:
        wanted = canonical(name)
        return next((item for item in self.held.values() if wanted in item.names), None)

    def get(self, key: str) -> Entry | None:
        return self.held.get(key)

    def entries(self) -> Sequence[Entry]:
        return tuple(self.held.values())

    def subscribe(self, changed: Callable[[str], None]) -> None:
        self._listeners.append(changed)

    def demand(self, key: str, waiting: int, oldest: float | None) -> None:
        self.demands.append((key, waiting, oldest))

    def settled(self) -> bool:
        return self.ready

    def _tell(self, key: str) -> None:
        for listener in self._listeners:
            listener(key)


@dataclass
class Running:
    """A gateway that serves, and a client for it."""

    gateway: Gateway
    server: uvicorn.Server
    port: int
    http: httpx.AsyncClient

    @property
    def waiting(self) -> int:
        return self.gateway.dispatcher.waiting

    async def chat(self, model: str = "tiny", *, path: str = "/api/chat", **fields: object) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}
        return await self.http.post(path, json=body)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def until_waiting(self, number: int) -> None:
        await auntil(lambda: self.waiting == number, what=f"{number} requests wait (now {self.waiting})")


def raw_request(
    path: str = "/api/chat", body: bytes = b'{"model":"tiny"}', *headers: str, method: str = "POST"
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def running_gateway(
    directory: Directory,
    *,
    drain: float = 10.0,
    plain: bool = False,
    host: str = "0.0.0.0",
    peers: Peers | None = None,
    sinks: Sequence[Sink] = (),
    **settings: object,
) -> AsyncIterator[Running]:
    """Serves on a free port of loopback until the block ends, then drains.

    ``host`` is only what the gateway believes it is bound to: it decides about the Host check. With ``plain`` it runs
    under uvicorn's own protocol instead of the gateway's.
    """
    settled = GatewayConfig(host=host, drain_timeout=drain, **settings)  # type: ignore[arg-type]  # named by the test
    gateway = Gateway(directory, settled, peers, sinks=sinks)
    config = uvicorn_config(gateway, settled)
    if plain:
        config.http = "httptools"
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config)
    port = listener.getsockname()[1]
    task = asyncio.create_task(server._serve(sockets=[listener]))
    timeout = httpx.Timeout(30.0)
    try:
        await auntil(lambda: server.started, what="the gateway listens")
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=timeout, trust_env=False, limits=limits
        ) as http:
            yield Running(gateway, server, port, http)
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def gateway_over(
    behaviour: Behaviour | None = None, *script: Behaviour, slots: int = 4
) -> AsyncIterator[tuple[FakeUpstream, Running]]:
    """A gateway with one Model, ``tiny``, and one stand-in for its runner."""
    async with (
        fake_upstream(behaviour, *script) as upstream,
        running_gateway(MemoryDirectory.of(entry("tiny", upstream.port, slots=slots))) as gateway,
    ):
        yield upstream, gateway
