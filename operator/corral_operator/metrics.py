"""What the operator counts: planning, its queue, calls to the API server, what it unloads, and how its Models are.

One for the life of the process; queue and store are those of the present term of holding the Lease. Only Models that
exist have series.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from corral_core.jsonfields import text
from corral_core.metrics import Family, Histogram, counter, gauge, histogram, render
from corral_core.model import ModelSpec
from corral_core.process_metrics import process_families
from corral_core.snapshot import Cause, Decision
from corral_kube.calls import Calls
from corral_operator.observe import Store
from corral_operator.workqueue import QueueMeasures, WorkQueue

PHASES = (
    "Pending",
    "Pulling",
    "Idle",
    "WaitingForCapacity",
    "Loading",
    "Ready",
    "Draining",
    "Suspended",
    "Failed",
)
SPEC, SPARE = "spec", "spare"
"""Reasons beside the planner's: the Model says so, or fewer replicas are enough."""
PLAN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Measures:
    """Used on one event loop."""

    def __init__(self, calls: Calls | None = None) -> None:
        self.plan = Histogram(PLAN_SECONDS)
        self.evictions: Counter[str] = Counter(dict.fromkeys((*Cause, SPEC, SPARE), 0))
        self.queue = QueueMeasures()
        self._calls = calls or Calls()
        self._work: WorkQueue | None = None
        self._store: Store | None = None
        self._acts = False

    def begin(self, queue: WorkQueue, store: Store) -> None:
        """A term begins."""
        self._work, self._store = queue, store

    def act(self) -> None:
        """The Lease is held, and everything has been listed."""
        self._acts = True

    def end(self) -> None:
        """The term is over."""
        self._work, self._store, self._acts = None, None, False

    def decided(self, old: Decision | None, new: Decision, spec: ModelSpec | None) -> None:
        """Counts a Model that gets fewer replicas than the plan before said."""
        if old is not None and new.replicas < old.replicas:
            self.evictions[_reason(new, spec)] += 1

    def text(self) -> str:
        return render((process_families, self.families))

    def families(self) -> Iterator[Family]:
        yield gauge("corral_operator_acting", "Whether this operator holds the Lease and acts.", [({}, self._acts)])
        yield histogram("corral_operator_plan_seconds", "How long making a plan took.", [({}, self.plan)])
        yield counter(
            "corral_operator_evictions_total",
            "Decisions to take replicas from a Model: expired (keep_alive ran out), room (for another Model), limit "
            "(of loaded Models), spare (fewer requests), unused (nobody waits while it loads), spec, failed.",
            [({"reason": reason}, count) for reason, count in self.evictions.items()],
        )
        yield from self._queue_families()
        yield from self._models()
        yield from self._calls.families("corral_operator")

    def _queue_families(self) -> Iterator[Family]:
        name, queue = "corral_operator_workqueue", self.queue
        depth = self._work.depth if self._work is not None else 0
        yield gauge(f"{name}_depth", "Models that are to be looked at.", [({}, depth)])
        yield counter(f"{name}_adds_total", "Models that became due.", [({}, queue.adds)])
        yield counter(f"{name}_retries_total", "Looks that failed and are done again.", [({}, queue.retries)])
        yield histogram(f"{name}_queue_seconds", "How long Models were due until looked at.", [({}, queue.waited)])
        yield histogram(f"{name}_work_seconds", "How long looking at a Model took.", [({}, queue.worked)])

    def _models(self) -> Iterator[Family]:
        store = self._store
        items = list(store.models.all()) if store is not None and self._acts else []
        phases = [(item.meta.key, text(item.status, "phase") or "Pending") for item in items]
        counts = Counter(phase for _, phase in phases)
        yield gauge("corral_operator_models", "Models by phase.", [({"phase": name}, counts[name]) for name in PHASES])
        yield gauge(
            "corral_operator_model_phase",
            "1 for the phase that the Model is in.",
            [({"model": key, "phase": phase}, 1) for key, phase in phases],
        )
        replicas = [({"model": item.meta.key}, _replicas(item.status.get("readyReplicas"))) for item in items]
        yield gauge("corral_operator_model_ready_replicas", "Runners of the Model that are ready.", replicas)
        yield gauge(
            "corral_operator_runners_unheard",
            "Runners of the Model that are ready and do not tell what they do: they count as busy.",
            [({"model": item.meta.key}, _unheard(store, item.meta.key)) for item in items if store is not None],
        )


def _unheard(store: Store, model: str) -> int:
    staying = [pod for pod in store.pods.of_model(model) if pod.ready and not pod.meta.deleted]
    return sum(pod.meta.uid not in store.activities for pod in staying)


def _replicas(value: object) -> int:
    return value if isinstance(value, int) else 0


def _reason(new: Decision, spec: ModelSpec | None) -> str:
    if spec is None or spec.suspend or spec.replicas is not None:
        return SPEC
    return SPARE if new.replicas else new.cause or Cause.UNUSED
