"""Counters of planning and reconciliation: how long plans take, why Models lose replicas, and errors by Model."""

from __future__ import annotations

from collections import Counter

from corral_core.base.metrics import Histogram
from corral_core.model.model import ModelSpec
from corral_core.planning.snapshot import Decision, ScaleDownCause

SPEC, SPARE = "spec", "spare"
"""Causes beside the planner's: the spec asks for fewer replicas, or fewer are enough."""

_PLAN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class PlanMetrics:
    """Used on one event loop."""

    def __init__(self) -> None:
        self.seconds = Histogram(_PLAN_SECONDS)
        self.evictions: Counter[str] = Counter(dict.fromkeys((*ScaleDownCause, SPEC, SPARE), 0))
        self.errors: Counter[tuple[str, str]] = Counter()
        self.gpu_failures = 0
        """Runner pods that were deleted because a GPU had failed."""

    def record_error(self, model: str, kind: str) -> None:
        """Count a failed reconciliation of the Model, empty for the plan of all; ``kind`` is api or internal."""
        self.errors[model, kind] += 1

    def forget(self, model: str) -> None:
        """Drop the series of a deleted Model."""
        for kind in ("api", "internal"):
            self.errors.pop((model, kind), None)

    def record_decision(self, old: Decision | None, new: Decision, spec: ModelSpec | None) -> None:
        """Count the decision if it gives the Model fewer replicas than the one of the previous plan."""
        if old is not None and new.replicas < old.replicas:
            self.evictions[_cause(new, spec)] += 1


def _cause(new: Decision, spec: ModelSpec | None) -> str:
    if spec is None or spec.suspend or spec.replicas is not None:
        return SPEC
    return SPARE if new.replicas else new.cause or ScaleDownCause.UNUSED
