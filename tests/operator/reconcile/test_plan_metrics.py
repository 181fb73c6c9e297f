"""Counters of evictions by cause."""

from __future__ import annotations

import pytest

from corral_core.model.model import ModelSpec
from corral_core.planning.snapshot import Decision, ScaleDownCause
from corral_operator.reconcile.metrics import PlanMetrics

SPEC = ModelSpec(source="file:///weights/tiny.gguf")


@pytest.mark.parametrize(
    ("cause", "decision", "spec"),
    [
        *((cause.value, Decision(0, "any reason", cause=cause), SPEC) for cause in ScaleDownCause),
        ("unused", Decision(0, "idle"), SPEC),
        ("spare", Decision(1, "serving requests"), SPEC),
        ("spare", Decision(1, "kept: spec.minReplicas is 1", cause=ScaleDownCause.EXPIRED), SPEC),
        ("spec", Decision(0, "suspended"), ModelSpec(source=SPEC.source, suspend=True)),
        ("spec", Decision(0, "deleted"), None),
    ],
)
def test_decisions_for_fewer_replicas_count_by_cause(cause: str, decision: Decision, spec: ModelSpec | None) -> None:
    metrics = PlanMetrics()
    metrics.record_decision(Decision(2, "serving requests"), decision, spec)
    assert {name: count for name, count in metrics.evictions.items() if count} == {cause: 1}


def test_a_first_plan_and_a_scale_up_are_no_evictions() -> None:
    metrics = PlanMetrics()
    metrics.record_decision(None, Decision(0, "idle"), SPEC)
    metrics.record_decision(Decision(0, "idle"), Decision(1, "pending requests: loading"), SPEC)
    assert not any(metrics.evictions.values())
