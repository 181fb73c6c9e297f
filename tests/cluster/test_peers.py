"""Gateways find one another by EndpointSlices of their Service, as a real API server lists and watches them."""

from __future__ import annotations

import asyncio
import signal
import socket
from concurrent.futures import Future

import ollama
import pytest

from corral_kube.client import connect
from corral_server.gateway.peers.exchange import Discovery, PeerSettings, Sources
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import free_ports
from tests.cluster.processes import LOOK, Answer, Gateway, Installation
from tests.support.waiting import auntil, until

pytestmark = pytest.mark.cluster

FULL = "server busy, please try again.  maximum pending requests exceeded"


def own_address() -> str:
    """An address of this machine that is not loopback: the API server takes no other for an endpoint."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing, but asks which address would be used
        except OSError:
            pytest.skip("the machine has no address but loopback")
        return str(probe.getsockname()[0])


def endpoint_slice(name: str, *, service: str = "corral", **pods: str) -> dict[str, object]:
    """Pods by name, with their addresses."""
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


def test_the_peers_are_the_other_endpoints_of_the_service(cluster: Cluster, namespace: str) -> None:
    path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    cluster.api.create(path, endpoint_slice("corral-a", one="192.0.2.1", two="192.0.2.2"))
    cluster.api.create(path, endpoint_slice("model-x", service="model-x", runner="192.0.2.9"))

    async def scenario() -> None:
        found: list[Sources] = []
        client = await connect(str(cluster.kubeconfig), manager="test")
        discovery = Discovery(client, PeerSettings(namespace, "corral", 7000), own="one", found=found.append)
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

    asyncio.run(scenario())


@pytest.mark.process
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_gateways_process_counts_what_its_peer_holds_until_that_is_gone(
    corral: Installation, end: signal.Signals
) -> None:
    """The Model has no operator, so whatever is admitted waits. One that stands still is as silent as a dead one."""
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
    held = [corral.ask(one, "cold") for _ in range(2)]
    until(lambda: refused(corral, two), 20, what="the bound at the other gateway", interval=LOOK)
    assert refused(corral, one)
    assert not any(request.done() for request in held)
    one.child.signal(end)
    until(lambda: not refused(corral, two), 20, what="the end of what a silent gateway held", interval=LOOK)
    if end is signal.SIGSTOP:
        one.child.signal(signal.SIGCONT)
        until(lambda: refused(corral, two), 20, what="it is heard again", interval=LOOK)
        assert not any(request.done() for request in held), "what it holds has lost nothing"
    for gateway in (one, two):
        gateway.child.kill()


def refused(corral: Installation, gateway: Gateway) -> bool:
    """Whether one more request is refused there; one that is not waits until the gateway ends."""
    asked = corral.ask(gateway, "cold")
    return _ended(asked) and _error(asked) == FULL


def _ended(asked: Future[Answer]) -> bool:
    try:
        asked.exception(0.5)
    except TimeoutError:
        return False
    return True


def _error(asked: Future[Answer]) -> str:
    error = asked.exception()
    return error.error if isinstance(error, ollama.ResponseError) else ""
