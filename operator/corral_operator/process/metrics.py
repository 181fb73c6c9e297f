"""Metrics of the operator: planning, work queue, calls to the API server, evictions, and the Models.

One object for the life of the process; queue and cluster state are those of the present term of leadership. Only Models
that exist have series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from corral_core.base.exposition import Metric, counter, expose, gauge, histogram
from corral_core.base.json_fields import get_str
from corral_core.base.process_metrics import process_families
from corral_kube.calls import APICallMetrics
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.reconcile.metrics import PlanMetrics
from corral_operator.reconcile.work_queue import WorkQueue, WorkQueueMetrics
from corral_operator.report.phases import PHASES


class OperatorMetrics:
    """Used on one event loop."""

    def __init__(self, calls: APICallMetrics | None = None) -> None:
        self.plans = PlanMetrics()
        self.queue = WorkQueueMetrics()
        self._calls = calls or APICallMetrics()
        self._work_queue: WorkQueue | None = None
        self._state: ClusterState | None = None
        self._leading = False

    def begin_election(self, queue: WorkQueue, state: ClusterState) -> None:
        """Record queue and state of a new term."""
        self._work_queue, self._state = queue, state

    def begin_leading(self) -> None:
        """Record that the replica holds the Lease and has listed everything."""
        self._leading = True

    def end_term(self) -> None:
        self._work_queue, self._state, self._leading = None, None, False

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition in an accepted format and its content type."""
        return expose((process_families, self.families), accept)

    def families(self) -> Iterator[Metric]:
        yield gauge(
            "corral_operator_leader",
            "1 if this replica is the leader and has listed all objects.",
            [({}, self._leading)],
        )
        yield histogram(
            "corral_operator_plan_duration_seconds", "Duration of the planning function.", [({}, self.plans.seconds)]
        )
        yield counter(
            "corral_operator_evictions_total",
            "Decisions to remove replicas of a Model by reason: expired (keep_alive), room (for another Model), limit "
            "(of loaded Models), spare (fewer requests), unused (no pending request while it loads), spec, failed.",
            [({"reason": reason}, count) for reason, count in self.plans.evictions.items()],
        )
        yield counter(
            "corral_reconcile_errors_total",
            "Failed reconciliations by Model (empty: the plan of all Models) and kind: api (a call to the API server), "
            "internal (any other error).",
            [({"model": model, "kind": kind}, count) for (model, kind), count in self.plans.errors.items()],
        )
        yield counter(
            "corral_operator_gpu_failures_total",
            "Runner pods that were deleted because a GPU had failed.",
            [({}, self.plans.gpu_failures)],
        )
        yield from self._queue_families()
        yield from self._model_families()
        yield from self._calls.families("corral_operator")

    def _queue_families(self) -> Iterator[Metric]:
        name, queue = "corral_operator_workqueue", self.queue
        depth = self._work_queue.depth if self._work_queue is not None else 0
        yield gauge(f"{name}_depth", "Models in the work queue.", [({}, depth)])
        yield counter(f"{name}_adds_total", "Models added to the work queue.", [({}, queue.adds)])
        yield counter(
            f"{name}_retries_total", "Models added again after a failed reconciliation.", [({}, queue.retries)]
        )
        yield histogram(
            f"{name}_queue_duration_seconds",
            "Time in the work queue before reconciliation.",
            [({}, queue.queue_seconds)],
        )
        yield histogram(f"{name}_work_duration_seconds", "Duration of a reconciliation.", [({}, queue.work_seconds)])

    def _model_families(self) -> Iterator[Metric]:
        state = self._state
        items = list(state.models.all()) if state is not None and self._leading else []
        phases = [(item.meta.key, get_str(item.status, "phase") or "Pending") for item in items]
        counts = Counter(phase for _, phase in phases)
        yield gauge(
            "corral_operator_models", "Number of Models by phase.", [({"phase": name}, counts[name]) for name in PHASES]
        )
        yield gauge(
            "corral_operator_model_phase",
            "1 for the current phase of the Model.",
            [({"model": key, "phase": phase}, 1) for key, phase in phases],
        )
        left = len(state.left_models) if state is not None and self._leading else 0
        yield gauge(
            "corral_operator_left_models", "Models for which another installation of the operator acts.", [({}, left)]
        )
        replicas = [({"model": item.meta.key}, _replicas(item.status.get("readyReplicas"))) for item in items]
        yield gauge("corral_operator_model_ready_replicas", "Ready runners of the Model.", replicas)
        yield gauge(
            "corral_operator_unresponsive_runners",
            "Ready runners without a current runner status; they count as busy.",
            [({"model": item.meta.key}, _unreachable(state, item.meta.key)) for item in items if state is not None],
        )
        yield from self._pull_families()

    def _pull_families(self) -> Iterator[Metric]:
        """Yield the progress of the pullers that run, for each Model that of one pod."""
        state = self._state if self._leading else None
        stores = (state.pullers, state.pods) if state else ()
        metas = [one.meta for store in stores for one in store.all()]
        statuses = state.pull_statuses if state else {}
        newest = {meta.model: statuses[meta.uid] for meta in metas if meta.uid in statuses}
        known = [({"model": model}, status) for model, status in newest.items()]
        name = "corral_operator_pull"
        completed = [(labels, status.completed) for labels, status in known]
        yield gauge(f"{name}_completed_bytes", "Pulled bytes of the Model's weights, during the pull.", completed)
        totals = [(labels, status.total) for labels, status in known if status.total is not None]
        yield gauge(f"{name}_total_bytes", "Bytes of the Model's weights to pull, during the pull.", totals)
        rates = [(labels, status.rate) for labels, status in known]
        yield gauge(f"{name}_bytes_per_second", "Rate of the pull of the Model's weights.", rates)


def _unreachable(state: ClusterState, model: str) -> int:
    staying = [pod for pod in state.pods.of_model(model) if pod.ready and not pod.meta.deleted]
    return sum(pod.meta.uid not in state.runner_statuses for pod in staying)


def _replicas(value: object) -> int:
    return value if isinstance(value, int) else 0
