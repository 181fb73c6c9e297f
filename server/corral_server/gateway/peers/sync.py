"""Peer discovery by EndpointSlices, and the exchange of usage reports with the peers.

- The peers are the other endpoints of the gateways' own Service, ready or not: a draining gateway still has requests.
- All gateways use the same peer port.
- While the API server is unavailable, the list of peers stays unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from corral_core.base.errors import InvalidSetting
from corral_core.base.json_fields import JsonObject, get_objects, get_str
from corral_core.base.settings import int_setting, str_setting
from corral_core.contracts.demand import field_manager
from corral_kube.calls import APICallMetrics
from corral_kube.client import connect
from corral_kube.list_watch import ListerWatcher
from corral_kube.reflector import Reflector
from corral_server.gateway import log
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.peers.server import peer_server
from corral_server.gateway.peers.usage import PATH, PEER_TIMEOUT, UsagePublisher
from corral_server.gateway.queueing.admission import GatewayUsage
from corral_server.gateway.upstream.json_lines import JsonLineStreams, Source

DEFAULT_PORT = 11435
PeerAddresses = Mapping[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """``namespace`` and ``service`` name the gateways' Service; if empty, this gateway has no peers."""

    namespace: str = ""
    service: str = ""
    port: int = DEFAULT_PORT

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> PeerSettings:
        """Raises InvalidSetting."""
        named = str_setting(environ, "CORRAL_PEER_SERVICE")
        namespace, _, service = named.partition("/")
        if named and not (namespace and service):
            raise InvalidSetting(f"CORRAL_PEER_SERVICE={named!r} is not allowed: it must be namespace/name")
        port = int_setting(environ, "CORRAL_PEER_PORT", default=DEFAULT_PORT, minimum=1, maximum=65535)
        return cls(namespace, service, port)


class PeerDiscovery:
    """Watches the Service's EndpointSlices. ``on_change`` is called with the new peers, host and port by ID."""

    def __init__(
        self, source: ListerWatcher, settings: PeerSettings, *, own: str, on_change: Callable[[PeerAddresses], None]
    ) -> None:
        self._port = settings.port
        self._own = own
        self._on_change = on_change
        self._slices: dict[str, JsonObject] = {}
        self._addresses: PeerAddresses = {}
        self._reflector = Reflector(
            source,
            f"/apis/discovery.k8s.io/v1/namespaces/{settings.namespace}/endpointslices",
            changed=self._changed,
            log=log.event,
            selector=f"kubernetes.io/service-name={settings.service}",
        )

    async def run(self) -> None:
        """Run until cancelled."""
        await self._reflector.run()

    def _changed(self, before: JsonObject | None, after: JsonObject | None) -> None:
        name = get_str(after or before, "metadata", "name")
        if after is None:
            self._slices.pop(name, None)
        else:
            self._slices[name] = after
        addresses = peer_addresses(self._slices.values(), port=self._port, own=self._own)
        if addresses != self._addresses:
            self._addresses = addresses
            self._on_change(addresses)


def peer_addresses(slices: Iterable[JsonObject], *, port: int, own: str) -> PeerAddresses:
    """Return all endpoints except the pod named ``own``, by pod UID. An endpoint in two slices counts once."""
    found = {}
    for slice_ in slices:
        for endpoint in get_objects(slice_, "endpoints"):
            addresses = endpoint.get("addresses")
            if isinstance(addresses, list) and addresses and get_str(endpoint, "targetRef", "name") != own:
                host = str(addresses[0])
                found[get_str(endpoint, "targetRef", "uid") or host] = (host, port)
    return found


@asynccontextmanager
async def open_peer_sync(
    settings: PeerSettings,
    peers: Peers,
    usage: GatewayUsage,
    *,
    host: str,
    kubeconfig: str | None,
    calls: APICallMetrics,
) -> AsyncIterator[None]:
    """Connect to the API server and run ``peer_sync``; without a Service do nothing.

    Raises KubeError if there are no credentials.
    """
    if not settings.service:
        yield
        return
    client = await connect(kubeconfig, manager=field_manager(peers.own_name), calls=calls)
    try:
        async with peer_sync(settings, client, peers, usage=usage, host=host):
            yield
    finally:
        await client.close()


@asynccontextmanager
async def peer_sync(
    settings: PeerSettings, source: ListerWatcher, peers: Peers, *, usage: GatewayUsage, host: str
) -> AsyncIterator[None]:
    """Publish ``usage`` to the peers and feed their reports to ``peers`` until the block ends.

    Raises InvalidSetting if the port is in use. If the watch fails permanently, the block is cancelled and the error
    raised.
    """
    streams = JsonLineStreams(peers.receive, read_timeout=PEER_TIMEOUT)

    def peers_changed(addresses: PeerAddresses) -> None:
        peers.set_members(addresses)
        streams.follow({name: Source(*address, f"{PATH}?watch=true") for name, address in addresses.items()})

    discovery = PeerDiscovery(source, settings, own=peers.own_name, on_change=peers_changed)
    try:
        async with (
            peer_server(UsagePublisher(peers.own_name, usage), host, settings.port),
            asyncio.TaskGroup() as group,
        ):
            watching = group.create_task(discovery.run(), name="peer discovery")
            try:
                yield
            finally:
                watching.cancel()
    finally:
        await streams.close()
        peers.close()
