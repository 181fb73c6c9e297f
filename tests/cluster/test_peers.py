"""Gateway replicas discover their peers by the EndpointSlices of their Service on a real API server."""

from __future__ import annotations

import asyncio
import signal
import socket
from concurrent.futures import Future

import ollama
import pytest

from corral_kube.client import connect
from corral_server.gateway.peers.sync import PeerAddresses, PeerDiscovery, PeerSettings
from tests.cluster.cluster import Cluster
from tests.cluster.installation import POLL_INTERVAL, Gateway, Installation, StreamedResponse
from tests.support.ports import free_ports
from tests.support.waiting import auntil, until

pytestmark = pytest.mark.cluster

FULL = "server busy, please try again.  maximum pending requests exceeded"


def own_address() -> str:
    """Return an address of this machine that is not loopback, which the API server rejects as an endpoint."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing; the kernel selects the source address
        except OSError:
            pytest.skip("the machine has no address but loopback")
        return str(probe.getsockname()[0])


def endpoint_slice(name: str, *, service: str = "corral", **pods: str) -> dict[str, object]:
    """Return an EndpointSlice; ``pods`` are addresses by pod name."""
    endpoints = [
        {
            "addresses": [address],
            "conditions": {"ready": pod != "draining"},
            "targetRef": {"kind": "Pod", "name": pod, "uid": f"uid-{pod}"},
        }
        for pod, address in pods.items()
    ]
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": 11434}],
    }


async def test_the_peers_are_the_other_endpoints_of_the_service(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    cluster.api.create(path, endpoint_slice("corral-a", one="192.0.2.1", two="192.0.2.2"))
    cluster.api.create(path, endpoint_slice("model-x", service="model-x", runner="192.0.2.9"))
    found: list[PeerAddresses] = []
    client = await connect(str(cluster.kubeconfig), manager="test")
    discovery = PeerDiscovery(client, PeerSettings(namespace, "corral", 7000), own="one", on_change=found.append)
    task = asyncio.create_task(discovery.run())
    try:
        await auntil(lambda: found == [{"uid-two": ("192.0.2.2", 7000)}])
        cluster.api.create(path, endpoint_slice("corral-b", draining="192.0.2.3"))
        both = {"uid-two": ("192.0.2.2", 7000), "uid-draining": ("192.0.2.3", 7000)}
        await auntil(lambda: found[1:] == [both])
        cluster.api.delete(f"{path}/corral-a")
        await auntil(lambda: found[2:] == [{"uid-draining": ("192.0.2.3", 7000)}])
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


@pytest.mark.process
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_the_requests_of_a_peer_count_until_it_is_gone(corral: Installation, end: signal.Signals) -> None:
    """Without an operator every admitted request stays pending. A paused peer is as silent as a killed one."""
    address, (port,) = own_address(), free_ports(1)
    settings = {
        "CORRAL_PEER_SERVICE": f"{corral.namespace}/corral",
        "CORRAL_PEER_PORT": str(port),
        "OLLAMA_MAX_QUEUE": "2",
    }
    path = f"/apis/discovery.k8s.io/v1/namespaces/{corral.namespace}/endpointslices"
    corral.cluster.api.create(path, endpoint_slice("corral-a", one=address))
    corral.add("cold")
    one = corral.start_gateway("one", host=address, **settings)
    two = corral.start_gateway("two", **settings)
    held = [corral.send(one, "cold") for _ in range(2)]
    until(lambda: rejects(corral, two), 20, what="the queue limit at the other gateway", interval=POLL_INTERVAL)
    assert rejects(corral, one)
    assert not any(request.done() for request in held)
    one.child.signal(end)
    until(lambda: not rejects(corral, two), 20, what="the end of the silent peer's requests", interval=POLL_INTERVAL)
    if end is signal.SIGSTOP:
        one.child.signal(signal.SIGCONT)
        until(lambda: rejects(corral, two), 20, what="the return of the peer", interval=POLL_INTERVAL)
        assert not any(request.done() for request in held), "its pending requests are kept"
    for gateway in (one, two):
        gateway.child.kill()


def rejects(corral: Installation, gateway: Gateway) -> bool:
    """Return whether one more request is rejected; an accepted one stays pending until the gateway ends."""
    pending = corral.send(gateway, "cold")
    return _ended(pending) and _error(pending) == FULL


def _ended(pending: Future[StreamedResponse]) -> bool:
    try:
        pending.exception(0.5)
    except TimeoutError:
        return False
    return True


def _error(pending: Future[StreamedResponse]) -> str:
    error = pending.exception()
    return error.error if isinstance(error, ollama.ResponseError) else ""
