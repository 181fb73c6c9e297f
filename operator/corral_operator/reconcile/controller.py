"""Controller: observes, plans for all Models, and reconciles each Model with the plan.

Invariants:
- A change only marks the plan as stale and queues the Model, before others if requests for it are pending. A worker
  waits for a plan that includes the change, and then makes the Model's objects and status match it, whatever led there.
  So nothing depends on the order of messages, and a restarted operator continues where the previous one stopped.
- One worker at a time handles a Model; several workers handle several Models.
- An error of any kind concerns the Model whose reconciliation raised it: that Model is tried again with growing
  delays, its condition Stalled says why, and the other Models are reconciled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from corral_core.base.clock import steady_time
from corral_core.base.json_log import error_location
from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.runner_status import Offload, RunnerStatus
from corral_core.model.model import Model
from corral_core.planning.snapshot import Policy
from corral_kube.errors import KubeError
from corral_operator import logs
from corral_operator.observe.cluster_state import ClusterState, StateChange
from corral_operator.observe.objects import ModelObject, PodObject
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.reconcile.applier import ObjectNotOwned, ObjectRejected
from corral_operator.reconcile.failed_devices import with_device_failure
from corral_operator.reconcile.metrics import PlanMetrics
from corral_operator.reconcile.planning.current_plan import PLAN_KEY, CurrentPlan
from corral_operator.reconcile.pulling.pull_view import pull_view, pull_wanted
from corral_operator.reconcile.work_queue import WorkQueue
from corral_operator.report.load import UNKNOWN_LOAD, LoadChoice
from corral_operator.report.usage import usage
from corral_operator.report.view import ModelView

STATUS_DELAY = 2.0
"""Seconds for which changes of a runner's status by ordinary traffic are gathered before the Model is reconciled."""

NODE_CHANGE_DELAY = 0.1
"""Seconds for which changes of nodes and other pods are gathered; in a large cluster they are frequent."""

PROGRESS_DELAY = 1.0
"""Seconds for which changes of a pull's progress are gathered."""

NOT_OWNED_RETRY = 30.0
"""Seconds between two attempts to apply objects whose names are taken."""

LEFT_MODEL_CHECK = 15.0
"""Seconds between two checks whether another installation still acts for a Model."""

FIRST_REJECTED_RETRY, LONGEST_REJECTED_RETRY = 1.0, 60.0
"""Seconds until an object that the API server has rejected is applied again: after the first rejection, and at most.
Any change of the Model tries earlier, a request among them."""


class ModelApplier(Protocol):
    """Makes the objects of a Model match the decision; implemented by ``applier.Applier``."""

    async def apply(self, item: ModelObject, replicas: int, *, pull: bool) -> None: ...

    async def interrupt(self, model: str) -> None: ...

    def forget(self, model: str) -> None: ...


class ModelStatusWriter(Protocol):
    """Writes a Model's status if it changed; implemented by ``report.status_writer.StatusWriter``.

    ``write`` returns in how many seconds the Model must be reconciled again. ``write_failure`` adds why the Model
    cannot be reconciled, and leaves the rest of its status.
    """

    async def write(self, view: ModelView) -> float | None: ...

    async def write_failure(self, item: ModelObject, error: str) -> None: ...

    def forget(self, model: str) -> None: ...


class ModelOwnership(Protocol):
    """Keeps installations of the operator apart; implemented by ``process.other_installations.OtherInstallations``."""

    async def owner(self, item: ModelObject) -> str | None: ...


class Controller:
    """Used on one event loop. ``leading`` tells whether this replica is the leader; nothing is written while it is not.

    ``load`` returns how a runner of the Model loads.
    """

    def __init__(
        self,
        state: ClusterState,
        queue: WorkQueue,
        *,
        policy: Policy,
        applier: ModelApplier,
        status_writer: ModelStatusWriter,
        installations: ModelOwnership,
        load: Callable[[Model], LoadChoice],
        leading: Callable[[], bool],
        metrics: PlanMetrics,
        clock: Callable[[], float] = steady_time,
    ) -> None:
        self._state = state
        self._queue = queue
        self._applier = applier
        self._status_writer = status_writer
        self._installations = installations
        self._load = load
        self._leading = leading
        self._metrics = metrics
        self._clock = clock
        self._plan = CurrentPlan(state, queue, policy=policy, metrics=metrics, clock=clock)
        self._not_owned: dict[str, str] = {}
        self._rejected: dict[str, tuple[PodFailure, float]] = {}

    def state_changed(self, change: StateChange) -> None:
        """Queue the changed Models; other pods matter only while a Model waits for capacity."""
        self._plan.mark_stale()
        for model in change.models:
            self._queue.add(model, urgent=self._state.demand_tracker.has_entries(model))
        if change.nodes or (change.other_pods and self._plan.waiting_for_capacity):
            self._queue.add_after(PLAN_KEY, NODE_CHANGE_DELAY)

    def runner_status_changed(self, model: str, runner: str, status: RunnerStatus | None) -> None:
        """Record the status of a runner (its pod's uid) of the Model; None: it is unreachable."""
        before = self._state.runner_statuses.get(runner)
        self._state.set_runner_status(runner, status)
        self._plan.mark_stale()
        delay = 0.0 if self._plan.waiting_for_capacity else _gathering_delay(before, status, self._clock())
        self._queue.add_after(model, delay)

    def runner_loaded(self, model: str, runner: str, info: RunnerInfo) -> None:
        """Record what a runner reported of its model after loading."""
        if self._state.set_runner_info(model, runner, info):
            self._queue.add_after(PLAN_KEY, NODE_CHANGE_DELAY)
        self._plan.mark_stale()
        self._queue.add(model)

    def pull_progressed(self, model: str, puller: str, status: PullStatus) -> None:
        """Record the progress of a pull (its pod's uid) of the Model; no plan is due for it."""
        self._state.set_pull_status(puller, status)
        self._queue.add_after(model, PROGRESS_DELAY)

    async def run_worker(self) -> None:
        """Reconcile keys of the queue until cancelled."""
        while True:
            key = await self._queue.get()
            try:
                if self._leading():
                    await self.reconcile(key)
                    self._queue.forget(key)
                else:
                    self._queue.add_after(key, STATUS_DELAY)
            except KubeError as error:
                delay = self._queue.add_rate_limited(key)
                self._metrics.record_error(key, "api")
                logs.event("reconcile_failed", level=logging.WARNING, model=key, error=str(error), retry_in_s=delay)
            except Exception as error:  # of any kind: the other Models must be reconciled
                await self._report_failure(key, error)
            finally:
                self._queue.done(key)

    async def _report_failure(self, key: str, error: Exception) -> None:
        """Try again later, and report an error that no call to the API server raised."""
        delay = self._queue.add_rate_limited(key)
        self._metrics.record_error(key, "internal")
        fields = {
            "model": key,
            "error": f"{error}"[:500],
            "where": error_location(error.__cause__ or error),
            "retry_in_s": delay,
        }
        logs.event("reconcile_failed", level=logging.ERROR, **fields)
        item = self._state.models.get(key)
        if item is None or item.meta.deleted:
            return
        try:
            await self._status_writer.write_failure(item, f"{type(error).__name__}: {error}")
        except Exception as failure:  # the status is the user's copy of the log event above
            logs.event("status_write_failed", level=logging.WARNING, model=key, error=f"{failure}"[:500])

    async def reconcile(self, key: str) -> None:
        """Make a new plan if the last one is stale, and make the Model match it.

        Raises KubeError, and any error in the processing of this Model.
        """
        if key == PLAN_KEY:
            self._plan.mark_stale()
            await self._plan.refresh()
            return
        try:
            await self._plan.refresh()
        except Exception as error:  # of all Models together: this one follows the last plan
            await self._report_failure(PLAN_KEY, error)
        item = self._state.models.get(key)
        if item is None or item.meta.deleted:
            self._forget(key)
            return
        plan_error = self._plan.error(key)
        if plan_error is not None:
            raise RuntimeError(f"the planner cannot process it: {plan_error}") from plan_error
        if await self._left_to_another(item):
            return
        if await self._apply(item):
            await self._write_status(key)

    async def _left_to_another(self, item: ModelObject) -> bool:
        """Return whether another installation of the operator acts for the Model; check again later if so."""
        key = item.meta.key
        if await self._installations.owner(item) is None:
            if key in self._state.left_models:
                self._state.left_models.discard(key)
                self._plan.mark_stale()
                self._queue.add(key)
                return True
            return False
        if key not in self._state.left_models:
            self._state.left_models.add(key)
            self._plan.mark_stale()
        self._queue.add_after(key, LEFT_MODEL_CHECK)
        return True

    def _forget(self, key: str) -> None:
        """Drop what is kept about a deleted Model."""
        self._applier.forget(key)
        self._status_writer.forget(key)
        self._metrics.forget(key)
        self._not_owned.pop(key, None)
        self._rejected.pop(key, None)
        self._state.left_models.discard(key)
        self._plan.forget(key)

    async def _apply(self, item: ModelObject) -> bool:
        """Apply the decision; return whether the plan still holds.

        It does not if the written Deployment requires something else of a node than the plan assumed. A new Deployment
        has no replicas, since the plan does not know yet whether any node can run one.
        """
        key = item.meta.key
        decision = self._plan.decision(key)
        if item.model is None or decision is None:
            return True
        planned = self._state.requirements(key)
        try:
            replicas = decision.replicas if planned is not None else 0
            await self._applier.apply(item, replicas, pull=self._pull_wanted(item))
            self._not_owned.pop(key, None)
            self._rejected.pop(key, None)
            if decision.interrupt:
                await self._applier.interrupt(key)
        except ObjectNotOwned as error:
            self._not_owned[key] = str(error)
            self._queue.add_after(key, NOT_OWNED_RETRY)
        except ObjectRejected as error:
            self._record_rejection(key, error.failure)
        holds = self._state.requirements(key) == planned
        if not holds:
            self._plan.mark_stale()
            self._queue.add(key)
        return holds

    def _pull_wanted(self, item: ModelObject) -> bool:
        return pull_wanted(self._state, item, self._plan.decision(item.meta.key), now=self._clock())

    def _record_rejection(self, key: str, failure: PodFailure) -> None:
        """Report the rejection in the status, and try again later, each time after twice the time."""
        known, delay = self._rejected.get(key, (None, FIRST_REJECTED_RETRY / 2))
        if known != failure:
            logs.event("object_rejected", level=logging.WARNING, model=key, error=failure.message)
        delay = min(2 * delay, LONGEST_REJECTED_RETRY)
        self._rejected[key] = failure, delay
        self._queue.add_after(key, delay)

    async def _write_status(self, key: str) -> None:
        item = self._state.models.get(key)
        if item is None or item.meta.deleted:
            return
        delay = await self._status_writer.write(self._view(item))
        if delay is not None:
            self._queue.add_after(key, delay)

    def _view(self, item: ModelObject) -> ModelView:
        key, state = item.meta.key, self._state
        pods = sorted(state.pods.of_model(key), key=lambda pod: pod.created)
        staying = [pod for pod in pods if not pod.meta.deleted and not pod.finished]
        infos = [info for pod in staying if (info := state.runner_infos.get(pod.meta.uid)) is not None]
        demand = state.demand_tracker.demand(key, self._clock())
        deployment_failures = (one.failure for one in state.deployments.of_model(key) if one.failure)
        return ModelView(
            item=item,
            decision=self._plan.decision(key),
            rejection=self._not_owned.get(key),
            names=state.client_names(key) if item.model is not None else (),
            lost_names=state.lost_names(key) if item.model is not None else (),
            pods=[
                with_device_failure(pod, state.runner_statuses.get(pod.meta.uid)) for pod in pods if not pod.finished
            ],
            info=min(reversed(infos), key=lambda info: info.context_length, default=None),  # which no runner is below
            usage=usage([state.runner_statuses.get(pod.meta.uid) for pod in staying if pod.ready], self._clock()),
            pending=demand.waiting if demand is not None else 0,
            rejected_object=self._rejected[key][0] if key in self._rejected else None,
            rejected_pod=next(deployment_failures, None if item.inspected else state.inspection_failures.get(key)),
            metadata=state.metadata(key),
            inspector=state.inspector(key),
            load=self._load(item.model) if item.model is not None else UNKNOWN_LOAD,
            offload=self._offload(staying),
            pull=pull_view(state, item, wanted=self._pull_wanted(item), now=self._clock()),
        )

    def _offload(self, pods: list[PodObject]) -> Offload | None:
        """Return what the newest loaded runner has on GPUs; None if that is not known."""
        statuses = [self._state.runner_statuses.get(pod.meta.uid) for pod in pods]
        known = [status.offload for status in statuses if status is not None and status.loaded]
        return known[-1] if known else None


def _gathering_delay(before: RunnerStatus | None, after: RunnerStatus | None, now: float) -> float:
    """Return for how many seconds a status change by ordinary traffic cannot change the plan; 0 for other changes."""
    if before is None or after is None:
        return 0.0
    if before.loaded != after.loaded or before.draining != after.draining:
        return 0.0
    return STATUS_DELAY if after.expires_at is None else min(STATUS_DELAY, max(after.expires_at - now, 0.0))
