"""Condition Inspected: whether the metadata of the weights, and with it the memory of a runner, is known."""

from __future__ import annotations

from corral_operator.report.condition import Condition
from corral_operator.report.pod_failure_messages import inspector_failure
from corral_operator.report.view import ModelView

INSPECTED = "Inspected"


def inspected(view: ModelView) -> Condition:
    if view.metadata is not None:
        metadata = view.metadata
        known = f"{metadata.parameter_size} {metadata.family}, {metadata.quantization_level}"
        memory = f"; a runner needs about {view.estimate}" if view.estimate else ""
        left_out = (
            f"; too long for the report, and not in /api/show: {', '.join(metadata.left_out)}"
            if metadata.left_out
            else ""
        )
        return Condition(INSPECTED, True, "Completed", known + memory + left_out)
    if view.inspector is None and view.rejected_pod is not None:
        return Condition(INSPECTED, False, view.rejected_pod.reason, view.rejected_pod.message)
    if view.inspector is None:
        return Condition(INSPECTED, False, "Pending", "the header of the weights must be read before the first start")
    failure = inspector_failure(view.inspector)
    if failure is not None:
        return Condition(INSPECTED, False, failure.reason, failure.message)
    return Condition(INSPECTED, False, "Running", "an inspector pod reads the header of the weights")
