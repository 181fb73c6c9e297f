"""Gateways find one another by EndpointSlices of their Service, as a real API server lists and watches them."""

from __future__ import annotations

import asyncio

import pytest

from corral_kube.client import connect
from corral_server.gateway.peers.exchange import Discovery, PeerSettings, Sources
from tests.cluster.cluster import Cluster
from tests.support.waiting import auntil

pytestmark = pytest.mark.cluster


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
