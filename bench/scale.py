"""The control loop at the size of a company: many Models on many nodes, with nothing but the API server real.

Operator and gateway run as processes on a control plane of their own; KWOK simulates nodes with eight GPUs each and
runs the pods by name only. Four phases follow one another:

- creation: all Models are created; the time from the last creation until all are Idle
- idle: CPU time, memory and requests of the operator with nothing to do
- storm: one request for each of many Models at zero replicas, through the gateway; the time until their pods exist. The
  same number of Deployments scaled by bare requests to the API server is the floor of this machine.
- restart: the operator ends and starts again; the time until it acts on a request, and what it writes. The start of a
  second gateway is timed as well.

    python bench/scale.py [--models N] [--nodes N] [--storm N] [--idle SECONDS]

Needs what the tests with an API server need (docs/development.md). The last line is a JSON object: seconds, MiB, and
counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.idle import Audit, Use, is_lease, use_of, what
from tests.cluster.api import MODELS, Api, Gone, Object, at
from tests.cluster.child_processes import Child
from tests.cluster.cluster import Cluster, open_cluster
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.installation import Gateway, Installation, installation
from tests.cluster.simulated_nodes import node
from tests.cluster.tools import programs
from tests.support.waiting import until

OPERATOR, RESTARTED, GATEWAY = "operator", "operator-2", "gateway"
USERS = (OPERATOR, RESTARTED, GATEWAY)
FLOOR = "floor"
_SIZE = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": "8"}
_LABELS = {"nvidia.com/gpu.memory": "81920", "nvidia.com/gpu.product": "simulated"}
_MIB = 1024 * 1024
_WRITES = frozenset({"create", "update", "patch", "delete"})

Figures = dict[str, object]


@dataclass
class PodTimes:
    """When a pod of each owner (its label) was first seen, by a watch in a thread that ends with the process."""

    api: Api
    path: str
    label: str
    seen: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        threading.Thread(target=self._run, args=(self._version(),), name="pods", daemon=True).start()

    def _version(self) -> str:
        return str(at(self.api.get(self.path), "metadata", "resourceVersion"))

    def _run(self, version: str) -> None:
        with suppress(OSError):  # the API server has ended
            while True:
                try:
                    for kind, pod in self.api.watch(self.path, version):
                        version = str(at(pod, "metadata", "resourceVersion"))
                        owner = at(pod, "metadata", "labels", self.label)
                        if kind == "ADDED" and isinstance(owner, str) and not self._task(pod):
                            self.seen.setdefault(owner, time.monotonic())
                except Gone:
                    version = self._version()

    @staticmethod
    def _task(pod: Object) -> bool:
        return at(pod, "metadata", "labels", "app.kubernetes.io/component") not in ("runner", FLOOR)


def add_nodes(cluster: Cluster, count: int) -> None:
    names = [f"simulated-{number:04}" for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: cluster.api.create("/api/v1/nodes", node(name, _SIZE, _LABELS)), names))

    def ready() -> bool:
        found = cluster.api.items("/api/v1/nodes")
        return sum(not at(each, "spec", "taints") for each in found) > count

    until(ready, 120, what="the readiness of all nodes", interval=0.5)


def create_models(installed: Installation, names: Sequence[str]) -> float:
    """Create all Models and return how long that took."""
    path = f"{MODELS}/namespaces/{installed.namespace}/models"
    pod: Object = {}
    documents = [installed.document(name, pod=pod, keepAlive="2m") for name in names]
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda document: installed.cluster.api.create(path, document), documents))
    return time.monotonic() - started


def wait_idle(installed: Installation, count: int) -> None:
    path = f"{MODELS}/namespaces/{installed.namespace}/models"

    def all_idle() -> bool:
        phases = Counter(str(at(item, "status", "phase")) for item in installed.cluster.api.items(path))
        return phases["Idle"] == count

    until(all_idle, 900, what="the phase Idle of all Models", interval=1.0)


@contextmanager
def pending_requests(gateway: Gateway, names: Sequence[str]) -> Iterator[None]:
    """Send one request for each Model at once, and cancel all of them at the end."""
    stop = threading.Event()
    sent = threading.Event()

    async def send() -> None:
        limits = httpx.Limits(max_connections=len(names))
        async with httpx.AsyncClient(base_url=gateway.url, limits=limits, timeout=600) as client:
            tasks = [
                asyncio.create_task(client.post("/api/generate", json={"model": name, "prompt": "Hi"}))
                for name in names
            ]
            sent.set()
            await asyncio.to_thread(stop.wait)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(send()), name="requests")
    thread.start()
    try:
        sent.wait(30)
        yield
    finally:
        stop.set()
        thread.join(60)


def print_requests(audit: Audit, offset: int, count: int) -> None:
    """Print how many requests for each of ``count`` Models operator and gateway have sent since ``offset``."""
    kinds = Counter(f"{at(one, 'user', 'username')} {what(one)}" for one in audit.since(offset) if not is_lease(one))
    for kind, number in kinds.most_common(10):
        print(f"  {number / count:6.2f} a Model: {kind}")


def storm(installed: Installation, audit: Audit, gateway: Gateway, names: Sequence[str]) -> Figures:
    times = PodTimes(installed.cluster.api, f"/api/v1/namespaces/{installed.namespace}/pods", "corral.dev/model")
    times.start()
    offset, started = audit.length(), time.monotonic()
    with pending_requests(gateway, names):
        until(lambda: len(times.seen) >= len(names), 300, what="a pod of each requested Model", interval=0.02)
        print_requests(audit, offset, len(names))
    ages = sorted(seen - started for seen in times.seen.values())
    return {
        "storm_first_s": round(ages[0], 2),
        "storm_median_s": round(ages[len(ages) // 2], 2),
        "storm_all_s": round(ages[-1], 2),
    }


def floor(cluster: Cluster, namespace: str, count: int) -> Figures:
    """Scale as many bare Deployments, with eight requests at a time."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    names = [f"{FLOOR}-{number:04}" for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: cluster.api.create(path, _bare(name)), names))
    until(lambda: _observed(cluster.api.items(path), count), 120, what="the Deployments' ReplicaSets", interval=0.5)
    times = PodTimes(cluster.api, f"/api/v1/namespaces/{namespace}/pods", FLOOR)
    times.start()
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: cluster.api.patch(f"{path}/{name}/scale", {"spec": {"replicas": 1}}), names))
    until(lambda: len(times.seen) >= count, 300, what="a pod of each Deployment", interval=0.02)
    return {"floor_all_s": round(max(times.seen.values()) - started, 2)}


def _bare(name: str) -> Object:
    labels = {FLOOR: name, "app.kubernetes.io/component": FLOOR}
    container = {"name": "pause", "image": "pause", "resources": {"requests": {"cpu": "10m"}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": {FLOOR: name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def _observed(deployments: Sequence[Object], count: int) -> bool:
    return sum(at(each, "status", "observedGeneration") is not None for each in deployments) >= count


def idle(audit: Audit, operator: Child, seconds: float) -> Figures:
    offset, before = audit.length(), use_of(operator)
    time.sleep(seconds)
    after, requests = use_of(operator), audit.since(offset)
    of_operator = [one for one in requests if at(one, "user", "username") in (OPERATOR, RESTARTED)]
    writes = Counter(what(one) for one in of_operator if at(one, "verb") in _WRITES and not is_lease(one))
    return {
        "idle_cpu_s_per_minute": round((after.cpu - before.cpu) * 60 / seconds, 2),
        "operator_rss_mib": round(after.memory / _MIB, 1),
        "idle_writes": dict(writes),
    }


def restart(installed: Installation, audit: Audit, gateway: Gateway, *, untouched: str) -> Figures:
    """End the operator, send a request, and start an operator again."""
    cluster = installed.cluster
    next(child for child in installed.children if child.name == OPERATOR).stop()
    times = PodTimes(cluster.api, f"/api/v1/namespaces/{installed.namespace}/pods", "corral.dev/model")
    times.start()
    offset = audit.length()
    with pending_requests(gateway, [untouched]):
        started = time.monotonic()
        start_operator(installed, RESTARTED)
        until(lambda: untouched in times.seen, 120, what="a pod of the requested Model", interval=0.02)
        acting = times.seen[untouched] - started
    writes = Counter(
        what(one)
        for one in audit.since(offset)
        if at(one, "user", "username") == RESTARTED and at(one, "verb") in _WRITES and not is_lease(one)
    )
    return {"restart_acting_s": round(acting, 2), "restart_writes": dict(writes)}


def start_operator(installed: Installation, user: str) -> Child:
    assert installed.cluster.control_plane is not None
    return installed.start_operator(user, KUBECONFIG=str(installed.cluster.control_plane.kubeconfig_of(user)))


def second_gateway(installed: Installation) -> Figures:
    """Start a gateway and wait until it knows the Models."""
    assert installed.cluster.control_plane is not None
    started = time.monotonic()
    config = str(installed.cluster.control_plane.kubeconfig_of(GATEWAY))
    gateway = installed.start_gateway("gateway-2", KUBECONFIG=config)
    until(
        lambda: httpx.get(f"{gateway.url}/api/tags", timeout=10).json()["models"], 60, what="the Models", interval=0.05
    )
    return {"gateway_start_s": round(time.monotonic() - started, 2)}


def measure(installed: Installation, audit: Audit, options: argparse.Namespace) -> Figures:
    assert installed.cluster.control_plane is not None
    figures: Figures = {"models": options.models, "nodes": options.nodes, "storm": options.storm}
    names = [f"model-{number:04}" for number in range(options.models)]
    operator = start_operator(installed, OPERATOR)
    gateway = installed.start_gateway(GATEWAY, KUBECONFIG=str(installed.cluster.control_plane.kubeconfig_of(GATEWAY)))
    started_cpu, offset = use_of(operator), audit.length()
    show(figures, {"create_s": round(create_models(installed, names), 1)})
    created = time.monotonic()
    wait_idle(installed, len(names))
    after: Use = use_of(operator)
    cpu = after.cpu - started_cpu.cpu
    show(figures, {"all_idle_s": round(time.monotonic() - created, 1), "creation_cpu_s": round(cpu, 1)})
    print_requests(audit, offset, len(names))
    time.sleep(10)
    show(figures, idle(audit, operator, options.idle))
    show(figures, storm(installed, audit, gateway, names[: options.storm]))
    show(figures, restart(installed, audit, gateway, untouched=names[-1]))
    show(figures, second_gateway(installed))
    return figures


def show(figures: Figures, more: Figures) -> None:
    figures.update(more)
    print(", ".join(f"{name} {value}" for name, value in more.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="The control loop at the size of a company.")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--storm", type=int, default=200)
    parser.add_argument("--idle", type=float, default=60.0)
    options = parser.parse_args()
    with open_cluster(programs(report=print), audited_users=USERS) as cluster, cluster.namespace() as namespace:
        add_nodes(cluster, options.nodes)
        kubelet = FakeKubelet(cluster.api, cluster.workspace)
        try:
            with installation(cluster, namespace, runners=lambda: kubelet.children(namespace)) as installed:
                figures = measure(installed, Audit(cluster), options)
            with cluster.namespace() as other:
                show(figures, floor(cluster, other, options.storm))
        finally:
            kubelet.stop()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
