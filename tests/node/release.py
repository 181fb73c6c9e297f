"""Corral as a Helm release on the site, its clients, and what tests ask about Models.

Clients reach the release's Service at its cluster address, as a pod would: this machine has a route to it.
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
from tests.node.site import WEIGHTS, Site
from tests.support.waiting import until

CHART = Path(__file__).parents[2] / "charts" / "corral"
NAME = NAMESPACE = "corral"
MODELS_IN = "models"
WAKE = 120.0
"""Seconds in which a cold Model must answer, on a machine that does much else at the same time."""

LOOK = 0.1
"""Seconds between two looks at the API server."""

CLIENTS = 16
"""Requests under way at once at most."""


ONE_THREAD: dict[str, object] = {"env": [{"name": "CORRAL_THREADS", "value": "1"}]}
"""What a Model of the tests says about its pod."""


@dataclass
class Answer:
    """What a streamed answer brought. ``ends`` counts its last objects, ``tokens`` is what they say."""

    text: str = ""
    chunks: int = 0
    ends: int = 0
    tokens: int | None = 0


@dataclass
class Release:
    """``install`` first."""

    site: Site
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(CLIENTS))

    def install(self, *settings: str) -> None:
        """Returns when operator and gateways are ready."""
        self.__dict__.pop("url", None)
        self.site.helm("install", NAME, str(CHART), "-n", NAMESPACE, "--wait", "--timeout", "4m", *settings)

    def upgrade(self, *settings: str) -> None:
        flags = ("-n", NAMESPACE, "--wait", "--timeout", "4m", "--reuse-values")
        self.site.helm("upgrade", NAME, str(CHART), *flags, *settings)

    @cached_property
    def url(self) -> str:
        """Known from the first look on: clients need no API server."""
        service = self.site.api.get(f"/api/v1/namespaces/{NAMESPACE}/services/{NAME}")
        return f"http://{at(service, 'spec', 'clusterIP')}:{at(service, 'spec', 'ports', 0, 'port')}"

    @contextmanager
    def ollama(self, timeout: float = WAKE) -> Iterator[ollama.Client]:
        with ollama.Client(self.url, timeout=timeout) as client:
            yield client

    @contextmanager
    def openai(self, timeout: float = WAKE) -> Iterator[openai.OpenAI]:
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", timeout=timeout, max_retries=0) as client:
            yield client

    def add(self, name: str, **spec: object) -> None:
        """Makes a Model of the small real model on the volume; ``spec`` adds to it or replaces."""
        small = {"source": f"pvc://weights/{WEIGHTS}", "contextLength": 1024, "parallel": 2, "pod": ONE_THREAD}
        metadata = {"name": name, "namespace": MODELS_IN}
        kind: dict[str, object] = {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": metadata}
        self.site.apply(kind | {"spec": small | {"keepAlive": "10m"} | spec})

    def remove(self, name: str) -> None:
        self.site.api.delete(self.path(name))
        self.wait_gone(name)

    def edit(self, name: str, **spec: object) -> None:
        self.site.api.patch(self.path(name), {"spec": spec})

    def path(self, name: str) -> str:
        return f"{MODELS}/namespaces/{MODELS_IN}/models/{name}"

    def model(self, name: str) -> Object:
        return self.site.api.get(self.path(name))

    def wait_phase(self, name: str, phase: str, timeout: float = WAKE) -> None:
        what = f"phase {phase} of {name}"
        until(lambda: at(self.model(name), "status", "phase") == phase, timeout, what=what, interval=LOOK)

    def replicas(self, name: str) -> int:
        """What the Model's Deployment asks for; 0 when there is none."""
        path = f"/apis/apps/v1/namespaces/{MODELS_IN}/deployments/model-{name}"
        found = at(self.site.api.find(path), "spec", "replicas")
        return found if isinstance(found, int) else 0

    def wait_replicas(self, name: str, replicas: int, timeout: float = WAKE) -> None:
        what = f"{replicas} replicas of {name}"
        until(lambda: self.replicas(name) == replicas, timeout, what=what, interval=LOOK / 2)

    def pods(self, name: str) -> list[Object]:
        """The Model's runner pods, those that end included."""
        path = f"/api/v1/namespaces/{MODELS_IN}/pods"
        selector = f"corral.dev/model={name},app.kubernetes.io/component=runner"
        return self.site.api.items(path, labelSelector=selector)

    def ready_pods(self, name: str) -> list[Object]:
        """Those that serve and stay."""
        staying = [pod for pod in self.pods(name) if at(pod, "metadata", "deletionTimestamp") is None]
        return [pod for pod in staying if condition(pod, "Ready").get("status") == "True"]

    def wait_gone(self, name: str, timeout: float = WAKE) -> None:
        """Until no pod of the Model is left."""
        until(lambda: not self.pods(name), timeout, what=f"the end of {name}'s pods", interval=LOOK)

    def demand(self, name: str) -> int:
        """How many requests the gateways say wait for the Model."""
        entries = at(self.model(name), "status", "demand")
        return sum(int(entry["waiting"]) for entry in entries) if isinstance(entries, list) else 0

    def revision(self) -> int:
        return int(json.loads(self.site.helm("status", NAME, "-n", NAMESPACE, "-o", "json"))["version"])

    def setting(self, part: str, name: str) -> str:
        """An environment variable of the part's Deployment."""
        found = self.site.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}-{part}")
        variables = at(found, "spec", "template", "spec", "containers", 0, "env")
        assert isinstance(variables, list)
        return str(next(item["value"] for item in variables if item["name"] == name))

    def own_pods(self, part: str) -> list[str]:
        """The names of the release's pods of a part: operator or gateway."""
        found = self.site.api.items(
            f"/api/v1/namespaces/{NAMESPACE}/pods", labelSelector=f"app.kubernetes.io/component={part}"
        )
        return [str(at(pod, "metadata", "name")) for pod in found if at(pod, "metadata", "deletionTimestamp") is None]

    def gateways(self) -> list[str]:
        """Where each gateway itself is reached: ``host:port``."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        pods = [self.site.api.get(f"{path}/{name}") for name in self.own_pods("gateway")]
        return [f"{at(pod, 'status', 'podIP')}:11434" for pod in pods]

    def images(self, part: str) -> set[object]:
        """The images of the release's pods of a part."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        pods = [self.site.api.get(f"{path}/{name}") for name in self.own_pods(part)]
        return {at(pod, "spec", "containers", 0, "image") for pod in pods}

    def ask(
        self, model: str, *, prompt: str = "Tell me a story.", tokens: int = 8, timeout: float = WAKE
    ) -> Future[Answer]:
        """A streamed request in a thread of its own."""
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
