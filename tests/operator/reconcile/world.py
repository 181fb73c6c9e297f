"""World of the controller tests: a controller, and a cluster in which each Deployment is written at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from corral_core.contracts.demand import DemandEntry
from corral_core.contracts.runner_status import RunnerStatus
from corral_core.planning.node import pod_requirements
from corral_core.planning.snapshot import Decision, Policy
from corral_kube.errors import APIServerUnreachable
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.feed import StateFeed
from corral_operator.observe.objects import ModelObject
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.process.metrics import OperatorMetrics
from corral_operator.reconcile.applier import ObjectNotOwned, ObjectRejected
from corral_operator.reconcile.controller import Controller
from corral_operator.reconcile.planning.current_plan import PLAN_KEY
from corral_operator.reconcile.work_queue import WorkQueue
from corral_operator.report.load import UNKNOWN_LOAD
from corral_operator.report.view import ModelView
from tests.operator import samples
from tests.operator.clock import ManualClock


class World:
    """Applier and status writer of its controller. ``applied`` are the written (Model, replicas) in order.

    ``memory`` is what the runners of a Model request; the next ``failures`` writes fail; ``not_owned`` makes all fail
    since another owner has the names, and ``rejected`` since the API server rejects an object. All
    Models are left to ``other_installation``.
    """

    def __init__(self, clock: ManualClock, policy: Policy) -> None:
        self.clock = clock
        self.leading = True
        self.leading_checks = 0
        self.state = ClusterState(clock=clock)
        self.metrics = OperatorMetrics()
        self.queue = WorkQueue(self.metrics.queue)
        self.version = 100
        self.applied: list[tuple[str, int]] = []
        self.views: dict[str, ModelView] = {}
        self.failures = 0
        self.broken: set[str] = set()
        self.reported_errors: dict[str, str] = {}
        self.not_owned = False
        self.other_installation: str | None = None
        self.rejected: PodFailure | None = None
        self.forgotten: list[str] = []
        self.interrupted: list[str] = []
        self.memory: dict[str, str] = {}
        self.reported_failure = False
        self.controller = Controller(
            self.state,
            self.queue,
            policy=policy,
            applier=self,
            status_writer=self,
            installations=self,
            load=lambda model: UNKNOWN_LOAD,
            leading=self._is_leading,
            metrics=self.metrics.plans,
            clock=clock,
        )
        self.feed = StateFeed(self.state, self.controller.state_changed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run three workers."""
        workers = [asyncio.create_task(self.controller.run_worker()) for _ in range(3)]
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self.queue.close()

    async def apply(self, item: ModelObject, replicas: int, *, pull: bool) -> None:
        await asyncio.sleep(0)
        if item.name in self.broken:
            raise OverflowError("cannot convert float infinity to integer")
        if self.rejected is not None:
            raise ObjectRejected(self.rejected)
        if self.not_owned:
            raise ObjectNotOwned("model-tiny exists already")
        if self.failures:
            self.failures -= 1
            raise APIServerUnreachable("no answer")
        pod = self._pod_spec(item.name)
        deployments = self.state.deployments.of_model(item.meta.key)
        if [(known.replicas, known.requirements) for known in deployments] != [(replicas, pod_requirements(pod))]:
            self.applied.append((item.name, replicas))
            raw = samples.deployment(item.name, replicas=replicas, version=self._next_version(), pod_spec=pod)
            self.state.apply(Kind.DEPLOYMENTS, raw)

    async def interrupt(self, model: str) -> None:
        self.interrupted.append(model)

    async def write(self, view: ModelView) -> float | None:
        self.views[view.item.name] = view
        self.reported_failure |= view.decision is not None and view.decision.failure is not None
        return None

    async def write_failure(self, item: ModelObject, error: str) -> None:
        self.reported_errors[item.name] = error

    async def owner(self, item: ModelObject) -> str | None:
        return self.other_installation

    def forget(self, model: str) -> None:
        self.forgotten.append(model)

    def model(self, name: str = "tiny", *, waiting: int = 0, **spec: object) -> None:
        """Create or change a Model, with a demand entry for ``waiting`` requests."""
        entry = DemandEntry("g1", waiting, oldest=self.clock.now, renewed=self.clock.now)
        status: dict[str, object] = {"demand": [entry.to_json()]} if waiting else {}
        self.feed.apply(Kind.MODELS, samples.model(name, version=self._next_version(), spec=spec, status=status))

    def delete_model(self, name: str = "tiny") -> None:
        self.feed.delete(Kind.MODELS, samples.model(name, version=self._next_version()))

    def pod(self, name: str = "tiny") -> None:
        """Create the runner pod of a Model."""
        self.feed.apply(Kind.PODS, self._pod(name))

    def delete_pod(self, name: str) -> None:
        self.feed.delete(Kind.PODS, self._pod(name))

    def report(self, status: RunnerStatus | None, name: str = "tiny") -> None:
        """Receive a status of the Model's runner."""
        self.controller.runner_status_changed(f"lab/{name}", f"uid-{name}-0", status)

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.queue.add(PLAN_KEY)

    def replicas(self, name: str = "tiny") -> int | None:
        return next((known.replicas for known in self.state.deployments.of_model(f"lab/{name}")), None)

    def decision(self, name: str = "tiny") -> Decision | None:
        """Return the decision that was last reported."""
        view = self.views.get(name)
        return view.decision if view is not None else None

    def _pod(self, name: str) -> dict[str, object]:
        spec = {"nodeName": "node-1", **self._pod_spec(name)}
        return samples.pod(name, name=f"{name}-0", version=self._next_version(), spec=spec)

    def _pod_spec(self, name: str) -> dict[str, object]:
        return samples.requesting(self.memory.get(name, "0"))

    def _is_leading(self) -> bool:
        self.leading_checks += 1
        return self.leading

    def _next_version(self) -> int:
        self.version += 1
        return self.version
