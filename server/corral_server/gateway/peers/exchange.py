"""Keeps this gateway and its peers informed of one another: found by EndpointSlice, told in streams.

The peers are the other endpoints of the gateways' own Service, ready or not: one that drains still holds requests. All
gateways use one port for it. While the API server is away the list stays as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from corral_core.demand import field_manager
from corral_core.errors import InvalidSetting
from corral_core.jsonfields import Json, objects, text
from corral_core.settings import int_setting, text_setting
from corral_kube.calls import Calls
from corral_kube.client import connect
from corral_kube.reflector import Reflector, Source
from corral_server.gateway import log
from corral_server.gateway.admission import Holding
from corral_server.gateway.peers.held import PATH, SILENCE, Board
from corral_server.gateway.peers.known import Peers
from corral_server.gateway.peers.server import peer_server
from corral_server.gateway.streams import Streams

DEFAULT_PORT = 11435
Sources = Mapping[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """``namespace`` and ``service`` name the gateways' Service; empty means that this gateway is the only one."""

    namespace: str = ""
    service: str = ""
    port: int = DEFAULT_PORT

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> PeerSettings:
        """Raises InvalidSetting."""
        named = text_setting(environ, "CORRAL_PEER_SERVICE")
        namespace, _, service = named.partition("/")
        if named and not (namespace and service):
            raise InvalidSetting(f"CORRAL_PEER_SERVICE={named!r} is not allowed: it must be namespace/name")
        port = int_setting(environ, "CORRAL_PEER_PORT", default=DEFAULT_PORT, minimum=1, maximum=65535)
        return cls(namespace, service, port)


class Discovery:
    """``found`` is called with the peers, id to host and port, whenever they are others."""

    def __init__(self, source: Source, settings: PeerSettings, *, own: str, found: Callable[[Sources], None]) -> None:
        self._port = settings.port
        self._own = own
        self._found = found
        self._slices: dict[str, Json] = {}
        self._sources: Sources = {}
        self._reflector = Reflector(
            source,
            f"/apis/discovery.k8s.io/v1/namespaces/{settings.namespace}/endpointslices",
            changed=self._changed,
            said=log.event,
            selector=f"kubernetes.io/service-name={settings.service}",
        )

    async def run(self) -> None:
        """For ever."""
        await self._reflector.run()

    def _changed(self, before: Json | None, after: Json | None) -> None:
        name = text(after or before, "metadata", "name")
        if after is None:
            self._slices.pop(name, None)
        else:
            self._slices[name] = after
        sources = peers_of(self._slices.values(), port=self._port, own=self._own)
        if sources != self._sources:
            self._sources = sources
            self._found(sources)


def peers_of(slices: Iterable[Json], *, port: int, own: str) -> Sources:
    """All endpoints but the pod named ``own``, by the pod's uid. One that two slices list counts once."""
    found = {}
    for slice_ in slices:
        for endpoint in objects(slice_, "endpoints"):
            addresses = endpoint.get("addresses")
            if isinstance(addresses, list) and addresses and text(endpoint, "targetRef", "name") != own:
                host = str(addresses[0])
                found[text(endpoint, "targetRef", "uid") or host] = (host, port)
    return found


@asynccontextmanager
async def open_exchange(
    settings: PeerSettings, peers: Peers, holding: Holding, *, host: str, kubeconfig: str | None, calls: Calls
) -> AsyncIterator[None]:
    """``exchange`` by way of the API server; nothing when there is no Service. Raises KubeError without credentials."""
    if not settings.service:
        yield
        return
    client = await connect(kubeconfig, manager=field_manager(peers.own), calls=calls)
    try:
        async with exchange(settings, client, peers, holding=holding, host=host):
            yield
    finally:
        await client.close()


@asynccontextmanager
async def exchange(
    settings: PeerSettings, source: Source, peers: Peers, *, holding: Holding, host: str
) -> AsyncIterator[None]:
    """Tells the peers what is held here, and ``peers`` what they hold, until the block ends.

    Raises InvalidSetting when the port is taken. Should watching ever fail for good, the block is cancelled and the
    failure raised.
    """
    streams = Streams(f"{PATH}?watch=true", peers.heard, silence=SILENCE)

    def found(sources: Sources) -> None:
        peers.list(sources)
        streams.follow(sources)

    discovery = Discovery(source, settings, own=peers.own, found=found)
    try:
        async with peer_server(Board(peers.own, holding), host, settings.port), asyncio.TaskGroup() as group:
            watching = group.create_task(discovery.run(), name="watching the other gateways")
            try:
                yield
            finally:
                watching.cancel()
    finally:
        await streams.close()
        peers.close()
