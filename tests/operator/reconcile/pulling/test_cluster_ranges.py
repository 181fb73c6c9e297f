"""Address ranges of the cluster."""

from __future__ import annotations

from corral_operator.reconcile.pulling.cluster_ranges import CACHE_SECONDS, ClusterRanges, cluster_ranges, joined
from tests.operator import samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube


async def test_the_ranges_are_those_of_nodes_pods_and_services(kube: FakeKube) -> None:
    addresses = [{"type": "InternalIP", "address": "192.168.0.4"}, {"type": "Hostname", "address": "node-1"}]
    kube.objects["/api/v1/nodes/node-1"] = {
        "spec": {"podCIDRs": ["10.1.0.0/24", "fd00:1::/64", "not a range"]},
        "status": {"addresses": addresses},
    }
    kube.objects["/apis/networking.k8s.io/v1/servicecidrs/kubernetes"] = {"spec": {"cidrs": ["10.96.0.0/12"]}}
    assert await cluster_ranges(kube) == ("10.1.0.0/24", "10.96.0.0/12", "192.168.0.4/32", "fd00:1::/64")


def test_adjacent_ranges_are_joined() -> None:
    assert joined([f"10.1.{number}.0/24" for number in range(256)]) == ("10.1.0.0/16",)


async def test_the_ranges_of_the_cluster_are_read_once_a_minute(kube: FakeKube, clock: ManualClock) -> None:
    ranges = ClusterRanges(kube, clock=clock)
    path = "/api/v1/nodes/one"
    kube.objects[path] = {**samples.node("one"), "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]}}
    before = await ranges.get()
    kube.objects[path] = {**samples.node("one"), "spec": {"podCIDRs": ["10.2.0.0/24"]}}
    assert await ranges.get() == before
    clock.now += CACHE_SECONDS
    assert "10.2.0.0/24" in await ranges.get()
