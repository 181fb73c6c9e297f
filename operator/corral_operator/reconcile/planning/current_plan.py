"""The current plan: made again for all Models when it is stale, and recorded.

- Every change of what plans depend on marks the plan as stale; the next worker makes a new one, at once when the last
  one is long ago. Between two plans there is a pause in proportion to their duration, in which changes are gathered:
  planning takes at most a fifth of the time, however many Models change.
- A Model whose decision has changed is queued. So is a new plan, for the time at which it changes without an event.
- A Model that the planner cannot process has an error instead of a new decision, and the others are planned.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from corral_core.planning.isolated_plan import isolated_plan
from corral_core.planning.plan_memory import PlanMemory
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Decision, Plan, Policy
from corral_operator import logs
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.reconcile.metrics import PlanMetrics
from corral_operator.reconcile.planning.planner_input import planner_snapshot
from corral_operator.reconcile.pulling.restarts import next_timeout
from corral_operator.reconcile.work_queue import WorkQueue

PLAN_KEY = ""
"""The queue's key for a new plan that no change of a Model asked for."""

REASON_INTERVAL = 5.0
"""Minimum seconds between two reasons of a Model that waits for capacity: free capacity changes with every pod."""


PAUSE_FACTOR, LONGEST_PAUSE = 4.0, 0.2
"""Pause after a plan, as a multiple of its duration, and at most in seconds."""


class CurrentPlan:
    """``waiting_for_capacity``: a Model is pending that no node has room for now. Used on one event loop."""

    def __init__(
        self,
        state: ClusterState,
        queue: WorkQueue,
        *,
        policy: Policy,
        metrics: PlanMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._queue = queue
        self._policy = policy
        self._metrics = metrics
        self._clock = clock
        self._plan = Plan({})
        self._errors: Mapping[str, Exception] = {}
        self._memory = PlanMemory()
        self._reason_at: dict[str, float] = {}
        self._changes = 1
        self._planned_changes = 0
        self._turn = asyncio.Lock()
        self._pause_ends = 0.0
        self.waiting_for_capacity = False

    def mark_stale(self) -> None:
        """Let the next worker make a new plan."""
        self._changes += 1

    async def refresh(self) -> None:
        """Return when the plan includes every change until now. Raises an error of all Models together.

        Workers that need a plan at the same time share one.
        """
        wanted = self._changes
        async with self._turn:
            if self._planned_changes >= wanted:
                return
            pause = self._pause_ends - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            started = time.monotonic()
            try:
                self._make()
            finally:
                ended = time.monotonic()
                self._pause_ends = ended + min(PAUSE_FACTOR * (ended - started), LONGEST_PAUSE)

    def decision(self, model: str) -> Decision | None:
        """Return the decision on the Model, None if the plan has none."""
        return self._plan.decisions.get(model)

    def error(self, model: str) -> Exception | None:
        """Return the error of a Model that the planner cannot process."""
        return self._errors.get(model)

    def forget(self, model: str) -> None:
        """Drop what is kept about a deleted Model."""
        self._reason_at.pop(model, None)

    def _make(self) -> None:
        """Make a new plan, and queue the Models whose decision it changes."""
        started = time.perf_counter()
        now = self._clock()
        before = self._plan.decisions
        self._planned_changes = self._changes
        errors: dict[str, Exception] = {}
        snapshot = planner_snapshot(
            self._state, self._policy, now, memory=self._memory, drained_before=self._drained_before, errors=errors
        )
        isolated = isolated_plan(snapshot, now, planner=plan)
        new_plan = self._memory.adopt(isolated.snapshot, isolated.plan, now)
        self._record_errors({**errors, **isolated.errors})
        decisions = {key: self._steady(key, before.get(key), new, now) for key, new in new_plan.decisions.items()}
        self._plan = Plan(decisions, new_plan.replan_at)
        self.waiting_for_capacity = any(decision.waiting_for_capacity for decision in decisions.values())
        for key, decision in decisions.items():
            self._record_decision(key, before.get(key), decision)
        self._metrics.seconds.observe(time.perf_counter() - started)
        times = [new_plan.replan_at, self._state.demand_tracker.next_expiry(now), next_timeout(self._state, now)]
        known = [when for when in times if when is not None]
        if known:
            self._queue.add_after(PLAN_KEY, max(min(known) - now, 0.0) + 0.005)

    def _record_errors(self, errors: Mapping[str, Exception]) -> None:
        """Queue the Models that the planner cannot process now; their own reconciliation reports the error."""
        for key in errors.keys() - self._errors.keys():
            self._queue.add(key)
        self._errors = errors

    def _record_decision(self, key: str, old: Decision | None, new: Decision) -> None:
        if old != new:
            self._queue.add(key, urgent=self._state.demand_tracker.has_entries(key))
        item = self._state.models.get(key)
        self._metrics.record_decision(old, new, item.model.spec if item is not None and item.model else None)
        if old is None or old.replicas != new.replicas:
            logs.event("replicas_decided", model=key, replicas=new.replicas, reason=new.reason)

    def _steady(self, key: str, old: Decision | None, new: Decision, now: float) -> Decision:
        """Return the old decision if the new one differs only in numbers of a reason that was reported just now."""
        waiting = old is not None and old.waiting_for_capacity and new.waiting_for_capacity
        if old is None or not waiting or old == new or replace(new, reason=old.reason) != old:
            self._reason_at[key] = now
            return new
        due = self._reason_at.get(key, now) + REASON_INTERVAL
        if now >= due:
            self._reason_at[key] = now
            return new
        self._queue.add_after(PLAN_KEY, due - now)
        return old

    def _drained_before(self, model: str) -> bool:
        """Return whether the Model drains by its status, which a previous process wrote."""
        item = self._state.models.get(model)
        return item is not None and item.status.get("phase") == "Draining"
