"""Corral as a Helm release on the cluster, its clients, and queries about Models.

Clients use the cluster address of the release's Service, as a pod does: this machine has a route to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import ollama
import openai

from tests.cluster.api import MODELS, Object, at, condition
from tests.node.real_cluster import WEIGHTS, RealCluster
from tests.support.waiting import until

CHART = Path(__file__).parents[2] / "charts" / "corral"
NAME = NAMESPACE = "corral"
MODELS_NAMESPACE = "models"
IMAGES = ("--set", "image.registry=docker.io", "--set", "image.tag=dev")
"""Options of helm for the images on the nodes, which ``tests.node.images`` builds."""
COLD_START = 120.0
"""Seconds in which a cold Model must answer on a busy machine."""

POLL = 0.1
"""Seconds between two requests to the API server while waiting."""

CLIENTS = 16
"""Maximum number of concurrent requests."""


ONE_THREAD: dict[str, object] = {"env": [{"name": "CORRAL_THREADS", "value": "1"}]}
"""``spec.pod`` of the tests' Models."""


@dataclass
class Answer:
    """A streamed response. ``ends`` counts its final objects; ``tokens`` is the count that they report."""

    text: str = ""
    chunks: int = 0
    ends: int = 0
    tokens: int | None = 0


@dataclass
class Release:
    """The Helm release and its clients; call ``install`` first."""

    cluster: RealCluster
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(CLIENTS))

    def install(self, *settings: str) -> None:
        """Install and wait until operator and gateways are ready."""
        self.__dict__.pop("url", None)
        flags = ("-n", NAMESPACE, "--wait", "--timeout", "4m", *IMAGES)
        self.cluster.helm("install", NAME, str(CHART), *flags, *settings)

    def upgrade(self, *settings: str) -> None:
        flags = ("-n", NAMESPACE, "--wait", "--timeout", "4m", "--reuse-values")
        self.cluster.helm("upgrade", NAME, str(CHART), *flags, *settings)

    @cached_property
    def url(self) -> str:
        """Address of the Service, looked up once: clients then need no API server."""
        service = self.cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/services/{NAME}")
        return f"http://{at(service, 'spec', 'clusterIP')}:{at(service, 'spec', 'ports', 0, 'port')}"

    @contextmanager
    def ollama(self, timeout: float = COLD_START) -> Iterator[ollama.Client]:
        with ollama.Client(self.url, timeout=timeout) as client:
            yield client

    @contextmanager
    def openai(self, timeout: float = COLD_START) -> Iterator[openai.OpenAI]:
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", timeout=timeout, max_retries=0) as client:
            yield client

    def add(self, name: str, **spec: object) -> None:
        """Create a Model of the small real model on the volume; ``spec`` adds or replaces fields."""
        small = {"source": f"pvc://weights/{WEIGHTS}", "contextLength": 1024, "parallel": 2, "pod": ONE_THREAD}
        metadata = {"name": name, "namespace": MODELS_NAMESPACE}
        kind: dict[str, object] = {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": metadata}
        self.cluster.apply(kind | {"spec": small | {"keepAlive": "10m"} | spec})

    def remove(self, name: str) -> None:
        self.cluster.api.delete(self.path(name))
        self.wait_gone(name)

    def edit(self, name: str, **spec: object) -> None:
        self.cluster.api.patch(self.path(name), {"spec": spec})

    def path(self, name: str) -> str:
        return f"{MODELS}/namespaces/{MODELS_NAMESPACE}/models/{name}"

    def model(self, name: str) -> Object:
        return self.cluster.api.get(self.path(name))

    def wait_phase(self, name: str, phase: str, timeout: float = COLD_START) -> None:
        what = f"phase {phase} of {name}"
        until(lambda: at(self.model(name), "status", "phase") == phase, timeout, what=what, interval=POLL)

    def replicas(self, name: str) -> int:
        """Return the replicas in the Model's Deployment; 0 without one."""
        path = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments/model-{name}"
        found = at(self.cluster.api.find(path), "spec", "replicas")
        return found if isinstance(found, int) else 0

    def wait_replicas(self, name: str, replicas: int, timeout: float = COLD_START) -> None:
        what = f"{replicas} replicas of {name}"
        until(lambda: self.replicas(name) == replicas, timeout, what=what, interval=POLL / 2)

    def pods(self, name: str) -> list[Object]:
        """Return the Model's runner pods, terminating ones included."""
        path = f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods"
        selector = f"corral.dev/model={name},app.kubernetes.io/component=runner"
        return self.cluster.api.items(path, labelSelector=selector)

    def ready_pods(self, name: str) -> list[Object]:
        """Return the ready runner pods that are not terminating."""
        staying = [pod for pod in self.pods(name) if at(pod, "metadata", "deletionTimestamp") is None]
        return [pod for pod in staying if condition(pod, "Ready").get("status") == "True"]

    def wait_gone(self, name: str, timeout: float = COLD_START) -> None:
        """Wait until the Model has no pod."""
        until(lambda: not self.pods(name), timeout, what=f"the end of {name}'s pods", interval=POLL)

    def demand(self, name: str) -> int:
        """Return the number of pending requests in the Model's status."""
        entries = at(self.model(name), "status", "demand")
        return sum(int(entry["waiting"]) for entry in entries) if isinstance(entries, list) else 0

    def revision(self) -> int:
        return int(json.loads(self.cluster.helm("status", NAME, "-n", NAMESPACE, "-o", "json"))["version"])

    def setting(self, part: str, name: str) -> str:
        """Return an environment variable of the component's Deployment."""
        found = self.cluster.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}-{part}")
        variables = at(found, "spec", "template", "spec", "containers", 0, "env")
        assert isinstance(variables, list)
        return str(next(item["value"] for item in variables if item["name"] == name))

    def own_pods(self, part: str) -> list[str]:
        """Return the names of the release's pods of a component: operator or gateway."""
        found = self.cluster.api.items(
            f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=f"app.kubernetes.io/component={part}"
        )
        return [str(at(pod, "metadata", "name")) for pod in found if at(pod, "metadata", "deletionTimestamp") is None]

    def gateways(self) -> list[str]:
        """Return the address of each gateway pod: ``host:port``."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        pods = [self.cluster.api.get(f"{path}/{name}") for name in self.own_pods("gateway")]
        return [f"{at(pod, 'status', 'podIP')}:11434" for pod in pods]

    def images(self, part: str) -> set[object]:
        """Return the images of the release's pods of a component."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        pods = [self.cluster.api.get(f"{path}/{name}") for name in self.own_pods(part)]
        return {at(pod, "spec", "containers", 0, "image") for pod in pods}

    def ask(
        self, model: str, *, prompt: str = "Tell me a story.", tokens: int = 8, timeout: float = COLD_START
    ) -> Future[Answer]:
        """Send a streamed request in a thread."""
        return self._pool.submit(self._ask, model, prompt, tokens=tokens, timeout=timeout)

    def _ask(self, model: str, prompt: str, *, tokens: int, timeout: float) -> Answer:
        answer = Answer()
        options = ollama.Options(num_predict=tokens, temperature=0.0, seed=1)
        with self.ollama(timeout) as client:
            for part in client.generate(model, prompt, options=options, stream=True):
                answer.text += part.response or ""
                answer.chunks += 1
                if part.done:
                    answer.ends += 1
                    answer.tokens = part.eval_count
        return answer

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
