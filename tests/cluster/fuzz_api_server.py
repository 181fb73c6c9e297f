"""Fuzzer of operator and gateway processes through a real API server.

A case creates or replaces a Model of a corpus, writes a status to one, or reports a message as the inspector of one.
The API server admits some of them. Invariants: no process ends, and from time to time the operator processes a change
of the good Model, which answers a request through the gateway.
"""

from __future__ import annotations

import random
from collections import Counter

from corral_core.base.json_fields import get_value
from tests.cluster.api import ApiError, Object
from tests.cluster.installation import START_TIMEOUT, Gateway, Installation
from tests.support.fuzz_objects import Corpus
from tests.support.waiting import until

GOOD_EVERY = 200
"""Cases between two requests to the good Model."""

HOSTILE_MODELS = 30


class APIServerFuzzer:
    """Call ``start``, and ``run`` for each case."""

    def __init__(self, corral: Installation, corpus: Corpus, seed: int) -> None:
        self._corral = corral
        self._corpus = corpus
        self._seed = seed
        self._api = corral.cluster.api
        self._present: set[str] = set()
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        # Otherwise the Models of the corpus that ask for a runner would take the good one's place, as they may.
        self._operator = self._corral.start_operator(OLLAMA_MAX_LOADED_MODELS="1000")
        self._gateway: Gateway = self._corral.start_gateway()
        self._corral.add("good")
        self._check_good(0)

    def run(self, number: int) -> None:
        """Run one case. Raises AssertionError or TimeoutError when an invariant is violated."""
        rng = random.Random(f"{self._seed} {number}")
        name = f"hostile-{rng.randrange(HOSTILE_MODELS)}"
        act = rng.choice((self._put, self._put, self._set_status, self._report))
        try:
            act(rng, name)
            self.counts[f"{act.__name__.strip('_')} admitted"] += 1
        except ApiError as error:
            self.counts[f"{act.__name__.strip('_')} rejected {error.status}"] += 1
        for child in (self._operator, self._gateway.child):
            assert child.alive, f"{child.name} ended with {child.exit_status()}:\n{child.tail(20)}"
        if number % GOOD_EVERY == 0:
            self._check_good(number)

    def _put(self, rng: random.Random, name: str) -> None:
        self._api.delete(self._corral.path(name))
        self._present.discard(name)
        raw = self._corpus.model(rng, name)
        body = {"apiVersion": raw["apiVersion"], "kind": "Model", "spec": raw.get("spec")}
        self._api.create(self._corral.path("")[:-1], {**body, "metadata": {"name": name}})
        self._present.add(name)

    def _set_status(self, rng: random.Random, name: str) -> None:
        """Write a status to the Model, or to another one if it does not exist."""
        if self._present and name not in self._present:
            name = rng.choice(sorted(self._present))
        self._api.patch(f"{self._corral.path(name)}/status", {"status": self._corpus.status(rng)})

    def _report(self, rng: random.Random, name: str) -> None:
        """Report the end of an inspector with an odd message, as its kubelet."""
        path = f"/api/v1/namespaces/{self._corral.namespace}/pods"
        pods = self._api.items(path, labelSelector="app.kubernetes.io/name=corral-inspector")
        if pods:
            status = self._corpus.inspector_pod(rng)["status"]
            self._api.patch(f"{path}/{get_value(rng.choice(pods), 'metadata', 'name')}/status", {"status": status})

    def _check_good(self, number: int) -> None:
        """Change the good Model, wait until the operator has processed it, and send a request."""
        self._corral.edit("good", license=f"{number}")
        until(self._good_is_processed, START_TIMEOUT, what="the operator to process the good Model", interval=0.1)
        try:
            answered = self._corral.send(self._gateway, "good", tokens=2).result(START_TIMEOUT)
        except TimeoutError as error:
            status = get_value(self._corral.model("good"), "status")
            raise AssertionError(f"no answer after case {number}: {status}\n{self._operator.tail(30)}") from error
        assert answered.done is not None
        self.counts["requests"] += 1

    def _good_is_processed(self) -> bool:
        good: Object = self._corral.model("good")
        return get_value(good, "status", "observedGeneration") == get_value(good, "metadata", "generation")
