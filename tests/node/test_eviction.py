"""Capacity for one of two Models on a real node: by the number of loaded models, and by the node's memory."""

from __future__ import annotations

from collections.abc import Iterator

import ollama
import pytest

from corral_core.base.quantities import MEMORY, resource_amount
from tests.cluster.api import at, condition
from tests.node.release import COLD_START, POLL, Release
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

Spec = dict[str, object]
LONG = 400
"""Tokens of a response that takes seconds."""


@pytest.fixture(params=["number of models", "memory"])
def spec(request: pytest.FixtureRequest, release: Release) -> Iterator[Spec]:
    """A spec with which only one Model fits."""
    if request.param == "memory":
        (node,) = release.cluster.api.items("/api/v1/nodes")
        whole = resource_amount(MEMORY, at(node, "status", "allocatable", "memory"))
        yield {"pod": _pod(memory=str(whole * 6 // 10))}
        return
    release.upgrade("--set", "settings.maxLoadedModels=1")
    yield {"pod": _pod()}
    release.upgrade("--set", "settings.maxLoadedModels=0")


@pytest.fixture
def pair(release: Release, model: str, spec: Spec) -> Iterator[tuple[str, str]]:
    other = f"{model}-too"
    for name in (model, other):
        release.add(name, **spec)
        release.wait_phase(name, "Idle")
    yield model, other
    release.remove(other)


def test_an_idle_model_is_evicted_for_a_pending_one(release: Release, pair: tuple[str, str]) -> None:
    first, second = pair
    for name, other in ((first, second), (second, first), (first, second)):
        assert release.ask(name).result(COLD_START).ends == 1
        assert (release.replicas(name), release.replicas(other)) == (1, 0)
    release.wait_gone(second)


def test_a_busy_model_finishes_its_stream_before_eviction(release: Release, pair: tuple[str, str]) -> None:
    busy, late = pair
    release.ask(busy).result(COLD_START)
    options = ollama.Options(num_predict=LONG, temperature=0.0, seed=1)
    with release.ollama() as client:
        stream = client.generate(busy, "Tell me a long story about a lighthouse keeper.", options=options, stream=True)
        parts = [next(stream) for _ in range(3)]
        waiting = release.ask(late)
        release.wait_phase(busy, "Draining", 20)
        until(
            lambda: _is_waiting_for_capacity(release, late),
            20,
            what="the pending model's condition",
            interval=POLL / 2,
        )
        assert release.pods(late) == []
        parts.extend(stream)
    assert [part.done for part in parts].count(True) == 1
    assert (parts[-1].done_reason, parts[-1].eval_count) == ("length", LONG)
    assert waiting.result(COLD_START).ends == 1
    assert (release.replicas(busy), release.replicas(late)) == (0, 1)


def _is_waiting_for_capacity(release: Release, name: str) -> bool:
    return condition(release.model(name), "Scheduled").get("reason") == "WaitingForCapacity"


def _pod(**requests: str) -> Spec:
    return {"env": [{"name": "CORRAL_THREADS", "value": "1"}], "resources": {"requests": requests}}
