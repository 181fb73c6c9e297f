"""What the operator tells of itself and of the Models."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from corral_core.model import ModelSpec
from corral_core.snapshot import Cause, Decision
from corral_operator.health import Health
from corral_operator.metrics import PHASES, Measures
from corral_operator.observe import Store
from corral_operator.web import pages
from corral_operator.workqueue import WorkQueue
from tests.operator import samples
from tests.operator.test_controller import World, scenario
from tests.operator.test_web import get
from tests.support.exposition import families, problems, value
from tests.support.planning import activity
from tests.support.waiting import auntil

CRD = Path(__file__).resolve().parents[2] / "crds/corral.dev_models.yaml"
SPEC = ModelSpec(source="file:///weights/tiny.gguf")


def test_planning_and_the_queue_are_measured() -> None:
    async def run(world: World) -> None:
        world.failures = 2
        world.model(waiting=1)
        await auntil(lambda: world.replicas() == 1)
        await auntil(lambda: not world.queue.depth)
        text = world.measures.text()
        assert value(text, "corral_operator_plan_seconds_count") >= 1
        assert value(text, "corral_operator_workqueue_adds_total") >= 3
        assert value(text, "corral_operator_workqueue_retries_total") == 2
        assert value(text, "corral_operator_workqueue_work_seconds_count") >= 3
        assert value(text, "corral_operator_workqueue_queue_seconds_count") >= 3

    scenario(run)


@pytest.mark.parametrize(
    ("reason", "decision", "spec"),
    [
        *((cause.value, Decision(0, "in any words", cause=cause), SPEC) for cause in Cause),
        ("unused", Decision(0, "idle: nobody asks for it"), SPEC),
        ("spare", Decision(1, "serving requests"), SPEC),
        ("spare", Decision(1, "kept: spec.minReplicas is 1", cause=Cause.EXPIRED), SPEC),
        ("spec", Decision(0, "suspended"), ModelSpec(source=SPEC.source, suspend=True)),
        ("spec", Decision(0, "gone"), None),
    ],
)
def test_replicas_that_are_taken_away_count_by_reason(reason: str, decision: Decision, spec: ModelSpec | None) -> None:
    measures = Measures()
    measures.decided(Decision(2, "serving requests"), decision, spec)
    assert value(measures.text(), "corral_operator_evictions_total", reason=reason) == 1


def test_a_first_plan_and_a_growing_model_evict_nothing() -> None:
    measures = Measures()
    measures.decided(None, Decision(0, "idle: nobody asks for it"), SPEC)
    measures.decided(Decision(0, "idle"), Decision(1, "requests wait: loading"), SPEC)
    told = [value(measures.text(), "corral_operator_evictions_total", reason=cause.value) for cause in Cause]
    assert told == [0] * len(Cause)


def acting(*phases: str) -> tuple[Measures, Store]:
    async def make() -> tuple[Measures, Store]:
        measures, store = Measures(), Store()
        for number, phase in enumerate(phases):
            raw = samples.model(f"m{number}", version=number + 1, status={"phase": phase, "readyReplicas": 1})
            store.heard_model(raw, kind="ADDED", now=0.0)
        measures.begin(WorkQueue(), store)
        measures.act()
        return measures, store

    return asyncio.run(make())


def test_models_are_counted_by_phase_and_each_tells_its_own() -> None:
    measures, _ = acting("Ready", "Ready", "Failed")
    text = measures.text()
    assert value(text, "corral_operator_models", phase="Ready") == 2
    assert value(text, "corral_operator_models", phase="Idle") == 0
    assert value(text, "corral_operator_model_phase", model="lab/m2", phase="Failed") == 1
    assert value(text, "corral_operator_acting") == 1


def test_a_deleted_model_has_no_series_and_an_operator_that_stands_by_tells_of_none() -> None:
    measures, store = acting("Ready", "Idle")
    store.heard_model(samples.model("m1", version=9), kind="DELETED", now=0.0)
    assert "lab/m1" not in measures.text()
    measures.end()
    assert "lab/" not in measures.text()


def test_a_runner_that_is_ready_and_does_not_speak_is_told() -> None:
    measures, store = acting("Ready")
    name, model = "corral_operator_runners_unheard", "lab/m0"
    assert value(measures.text(), name, model=model) == 0
    store.heard_pod(samples.pod("m0", name="m0-a"), kind="ADDED")
    store.heard_pod(samples.pod("m0", name="m0-b", ready=False), kind="ADDED")
    assert value(measures.text(), name, model=model) == 1
    [ready] = [pod for pod in store.pods.of_model(model) if pod.ready]
    store.activities[ready.meta.uid] = activity()
    assert value(measures.text(), name, model=model) == 0


def test_the_phases_are_those_of_the_resource() -> None:
    crd = yaml.safe_load(CRD.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert set(PHASES) == set(schema["status"]["properties"]["phase"]["enum"])


def test_a_scrape_is_clean_by_prometheus_own_checks() -> None:
    measures, _ = acting("Ready")
    measures.decided(Decision(1, "serving"), Decision(0, "idle"), SPEC)
    status, kind, text = asyncio.run(get(pages(Health(), measures), "/metrics"))
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert families(text)["corral_operator_plan_seconds"] == "histogram"
    assert problems(text) == ""
