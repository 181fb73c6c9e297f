"""Inspection over an API server in memory."""

from __future__ import annotations

from collections.abc import Mapping

from corral_core.planning.plan_memory import PlanMemory
from corral_core.planning.snapshot import ModelState, Policy
from corral_operator.config import RunnerDefaults
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import parse_model_object
from corral_operator.reconcile.inspection import Inspection
from corral_operator.reconcile.planning.planner_input import planner_snapshot
from tests.operator import samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.samples import NOW


class InspectionCase:
    """Inspection over an API server in memory; ``requeued`` are the keys to reconcile at once."""

    def __init__(self, kube: FakeKube, clock: ManualClock) -> None:
        self.kube = kube
        self.clock = clock
        self.requeued: list[str] = []
        self.start()

    def start(self, limit: int = 4) -> None:
        """Start an operator, whose state is empty."""
        self.state = ClusterState(clock=self.clock)
        self.inspection = Inspection(
            self.kube, self.state, RunnerDefaults(), limit=limit, requeue=self._requeue, clock=self.clock
        )

    async def reconcile(
        self, name: str = "tiny", *, version: int = 10, inspected: bool = False, **spec: object
    ) -> None:
        raw = samples.model(name, version=version, spec=spec, inspected=inspected)
        self.state.apply(Kind.MODELS, raw)
        await self.inspection.reconcile(parse_model_object(raw))

    def pods(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.kube.objects if "/pods/" in path]

    def pod(self, name: str = "tiny") -> dict[str, object]:
        return self.kube.objects[_path(name)]

    def set_status(self, status: Mapping[str, object], name: str = "tiny") -> None:
        """Change the status of the inspector, and receive its watch event."""
        self.kube.version += 1
        raw = samples.with_metadata(self.pod(name), resourceVersion=str(self.kube.version))
        self.kube.objects[_path(name)] = {**raw, "status": status}
        self.state.apply(Kind.PODS, self.pod(name))

    def planned(self) -> ModelState:
        snapshot = planner_snapshot(
            self.state, Policy(), NOW, memory=PlanMemory(), drained_before=lambda key: False, errors={}
        )
        (state,) = snapshot.models
        return state

    def _requeue(self, key: str, delay: float) -> None:
        if delay == 0:
            self.requeued.append(key)


def _path(name: str) -> str:
    return f"{api_paths.pods('lab')}/model-{name}-info"
