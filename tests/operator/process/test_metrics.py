"""Metrics of the operator."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from corral_core.contracts.pull_status import PullStatus
from corral_core.model.model import ModelSpec
from corral_core.planning.snapshot import Decision
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.process.health import Health
from corral_operator.process.http_server import pages
from corral_operator.process.metrics import OperatorMetrics
from corral_operator.reconcile.work_queue import WorkQueue
from corral_operator.report.phases import PHASES
from tests.operator import pull_samples, samples
from tests.operator.process.test_http_server import get
from tests.support.exposition import lint_metrics, parse_metric_types, sample_value

CRD = Path(__file__).resolve().parents[3] / "crds/corral.dev_models.yaml"


@pytest.fixture
async def metrics(state: ClusterState) -> OperatorMetrics:
    """Return the metrics of a leader; ``state`` is its cluster state."""
    made = OperatorMetrics()
    made.begin_election(WorkQueue(), state)
    made.begin_leading()
    return made


def add_models(state: ClusterState, *phases: str) -> None:
    for number, phase in enumerate(phases):
        status = {"phase": phase, "readyReplicas": 1}
        state.apply(Kind.MODELS, samples.model(f"m{number}", version=number + 1, status=status))


def test_models_are_counted_by_phase(state: ClusterState, metrics: OperatorMetrics) -> None:
    add_models(state, "Ready", "Ready", "Failed")
    text = metrics.exposition()[0].decode()
    assert sample_value(text, "corral_operator_models", phase="Ready") == 2
    assert sample_value(text, "corral_operator_models", phase="Idle") == 0
    assert sample_value(text, "corral_operator_model_phase", model="lab/m2", phase="Failed") == 1
    assert sample_value(text, "corral_operator_leader") == 1


def test_deleted_models_have_no_series_and_a_standby_has_none(state: ClusterState, metrics: OperatorMetrics) -> None:
    add_models(state, "Ready", "Idle")
    state.delete(Kind.MODELS, samples.model("m1", version=9))
    assert "lab/m1" not in metrics.exposition()[0].decode()
    metrics.end_term()
    assert "lab/" not in metrics.exposition()[0].decode()


def test_a_ready_runner_without_a_status_is_unreachable(state: ClusterState, metrics: OperatorMetrics) -> None:
    add_models(state, "Ready")
    name, model = "corral_operator_unresponsive_runners", "lab/m0"
    assert sample_value(metrics.exposition()[0].decode(), name, model=model) == 0
    state.apply(Kind.PODS, samples.pod("m0", name="m0-a"))
    state.apply(Kind.PODS, samples.pod("m0", name="m0-b", ready=False))
    assert sample_value(metrics.exposition()[0].decode(), name, model=model) == 1
    state.runner_statuses["uid-m0-a"] = samples.runner_status()
    assert sample_value(metrics.exposition()[0].decode(), name, model=model) == 0


def test_the_phases_are_those_of_the_crd() -> None:
    crd = yaml.safe_load(CRD.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert set(PHASES) == set(schema["status"]["properties"]["phase"]["enum"])


async def test_the_exposition_is_valid(state: ClusterState, metrics: OperatorMetrics) -> None:
    add_models(state, "Ready")
    spec = ModelSpec(source="file:///weights/tiny.gguf")
    metrics.plans.record_decision(Decision(1, "serving"), Decision(0, "idle"), spec)
    status, kind, text = await get(pages(Health(), metrics), "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert parse_metric_types(text)["corral_operator_plan_duration_seconds"] == "histogram"
    assert lint_metrics(text) == ""


def test_a_pull_has_series_while_its_puller_exists(state: ClusterState, metrics: OperatorMetrics) -> None:
    state.apply(Kind.PODS, pull_samples.puller({"running": {}}))
    state.pull_statuses["uid-pull"] = PullStatus(43, 100, 7.0, "pulling")
    text = metrics.exposition()[0].decode()
    assert sample_value(text, "corral_operator_pull_completed_bytes", model="lab/tiny") == 43
    assert sample_value(text, "corral_operator_pull_total_bytes", model="lab/tiny") == 100
    assert sample_value(text, "corral_operator_pull_bytes_per_second", model="lab/tiny") == 7
    state.replace(Kind.PODS, [], "1000")
    state.forget_runners()
    assert "corral_operator_pull_completed_bytes{" not in metrics.exposition()[0].decode()


def test_pulls_in_runner_pods_have_one_series_for_each_model(state: ClusterState, metrics: OperatorMetrics) -> None:
    for number in range(2):
        state.apply(Kind.PODS, pull_samples.runner({"running": {}}, name=f"tiny-{number}"))
        state.set_pull_status(f"uid-tiny-{number}", PullStatus(7))
    text = metrics.exposition()[0].decode()
    assert text.count("corral_operator_pull_completed_bytes{") == 1
    state.apply(Kind.PODS, pull_samples.runner({"terminated": {"exitCode": 0}}, name="tiny-0", version=21))
    state.apply(Kind.PODS, pull_samples.runner({"terminated": {"exitCode": 0}}, name="tiny-1", version=21))
    state.forget_runners()
    assert "corral_operator_pull_completed_bytes{" not in metrics.exposition()[0].decode()
