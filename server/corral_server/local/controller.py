"""Planner loop of local mode: snapshot, plan, apply, after every change and whenever time alone changes the plan.

The memory of other processes changes without an event, so the loop polls it while requests wait for capacity. An error
of any kind in the processing of one Model is logged, and the other Models are served.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from corral_core.base.clock import steady_time
from corral_core.base.json_log import error_location
from corral_core.planning.isolated_plan import isolated_plan
from corral_core.planning.plan_memory import PlanMemory
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Decision, ModelState, Plan, Policy, Snapshot
from corral_server.local.directory import LocalDirectory
from corral_server.local.event_log import EventLog
from corral_server.local.files import ListedModel
from corral_server.local.local_node import with_local_node
from corral_server.local.pulls.source_restarts import SourceRestarts
from corral_server.local.runners.memory import NO_SETTINGS, RunnerMemory
from corral_server.local.runners.process import display_name
from corral_server.local.runners.supervisor import Supervisor

_REMOVED = "the Model was removed"
_PULLING = "the Model's source is being pulled"
_RESOLVING = "the source is resolved, and a new version pulled, before the start: spec.updatePolicy is OnRestart"
MAX_PLAN_INTERVAL = 60.0
"""Seconds between plans at most: laptops suspend."""
CAPACITY_POLL = 1.0
"""Seconds between plans while requests wait for capacity."""
RETRY_DELAY = 1.0
"""Seconds after an error of the planner at which it is called again."""


def unlimited(_runners: Collection[int]) -> int | None:
    """Return no capacity limit: the planner then counts loaded models only."""
    return None


class LocalController:
    """Applies the plan to the supervisor.

    ``capacity`` returns the bytes that all runners (given by process id) may use together, None if unknown. ``environ``
    is the environment of the runners, ``store`` the folder of pulled weights, and ``restarts`` resolves sources again
    before a start.
    """

    def __init__(
        self,
        directory: LocalDirectory,
        supervisor: Supervisor,
        policy: Policy,
        log: EventLog,
        *,
        capacity: Callable[[Collection[int]], int | None] = unlimited,
        environ: Mapping[str, str] = NO_SETTINGS,
        store: Path | None = None,
        restarts: SourceRestarts | None = None,
    ) -> None:
        self._directory = directory
        self._supervisor = supervisor
        self._policy = policy
        self._log = log
        self._capacity = capacity
        self._store = store
        self._restarts = restarts
        self._memory = RunnerMemory(environ)
        self._plans = PlanMemory()
        self._plan_requested = asyncio.Event()

    def request_plan(self) -> None:
        """Make the loop plan again."""
        self._plan_requested.set()

    async def run(self) -> None:
        """Plan until cancelled."""
        while True:
            self._plan_requested.clear()
            new_plan = self._safe_step(steady_time())
            waiting = any(decision.waiting_for_capacity for decision in new_plan.decisions.values())
            wait = CAPACITY_POLL if waiting else MAX_PLAN_INTERVAL
            if new_plan.replan_at is not None:
                wait = min(wait, max(0.0, new_plan.replan_at - steady_time()))
            try:
                async with asyncio.timeout(wait):
                    await self._plan_requested.wait()
            except TimeoutError:
                continue

    def _safe_step(self, now: float) -> Plan:
        try:
            return self.step(now)
        except Exception as error:  # of any kind: runners stay as they are until the next plan
            self._report("", error)
            return Plan({}, now + RETRY_DELAY)

    def step(self, now: float) -> Plan:
        """Plan once and apply the plan."""
        listed = {each.model.key: each for each in self._directory.listed()}
        snapshot = self._snapshot(listed)
        isolated = isolated_plan(snapshot, now, planner=plan)
        new_plan = self._plans.adopt(isolated.snapshot, isolated.plan, now)
        for key, error in isolated.errors.items():
            self._report(key, error)
        for key, decision in new_plan.decisions.items():
            try:
                if key in listed:
                    self._apply(listed[key], decision)
                else:
                    self._supervisor.remove(key)
            except Exception as failure:  # of any kind: the other Models must be served
                self._report(key, failure)
        return new_plan

    def _report(self, key: str, error: Exception) -> None:
        self._log.problem("reconcile_failed", key, error=f"{error}"[:500], where=error_location(error))

    def _apply(self, listed: ListedModel, decision: Decision) -> None:
        key = listed.model.key
        before = self._supervisor.desired_replicas(key), self._directory.draining(key)
        if (decision.replicas, decision.draining) != before:
            name = display_name(listed.model)
            fields = {"replicas": decision.replicas, "draining": decision.draining, "reason": decision.reason}
            self._log.event("plan", name, **fields)
        self._directory.decided(key, decision)
        self._directory.drain(key, decision.draining)
        self._directory.interrupt(key, decision.interrupt)
        settings = {**self._memory.settings(key), **self._snapshots(listed)}
        context = self._memory.settings(key).get("CORRAL_CONTEXT_LENGTH", "")
        self._directory.set_context(key, *self._memory.context(key))
        self._supervisor.scale(listed.model, f"{listed.digest}{context}", decision.replicas, settings=settings)
        if decision.interrupt:
            self._supervisor.interrupt(key)

    def _snapshots(self, listed: ListedModel) -> Mapping[str, str]:
        """Return the settings by which a runner finds the weights that were pulled for its Model."""
        if self._store is None or not listed.weights.snapshots:
            return NO_SETTINGS
        return {"CORRAL_STORE": str(self._store), "CORRAL_SNAPSHOTS": json.dumps(dict(listed.weights.snapshots))}

    def _snapshot(self, listed: dict[str, ListedModel]) -> Snapshot:
        states = [self._state(each) for each in listed.values()]
        for model in self._supervisor.models():
            if model.key not in listed:
                replicas = self._supervisor.replicas(model.key)
                states.append(ModelState(model.key, model.created, model.spec, 0, replicas, rejection=_REMOVED))
        capacity = self._capacity(self._supervisor.pids())
        if capacity is None:
            return Snapshot(tuple(states), self._policy)
        running = {state.key for state in states if state.replicas}
        contexts = self._directory.wanted_contexts
        self._memory.update(listed.values(), running=running, capacity=capacity, contexts=contexts)
        placed, machine = with_local_node(states, self._memory.bytes, capacity)
        return Snapshot(placed, self._policy, (machine,))

    def _state(self, listed: ListedModel) -> ModelState:
        model = listed.model
        state = ModelState(
            key=model.key,
            created=model.created,
            spec=model.spec,
            desired=self._supervisor.desired_replicas(model.key),
            replicas=self._supervisor.replicas(model.key),
            demand=self._directory.demand(model.key),
            rejection=None if listed.servable else _PULLING,
            not_pulled=_RESOLVING if self._start_held(listed) else None,
        )
        return self._plans.complete(state)

    def _start_held(self, listed: ListedModel) -> bool:
        """Return whether the start of a Model with the policy OnRestart waits for its sources."""
        spec, key = listed.model.spec, listed.model.key
        if self._restarts is None or spec.update_policy != "OnRestart":
            return False
        asked = spec.replicas is None and self._directory.demand(key) is not None
        wanted = asked or (spec.min_replicas if spec.replicas is None else spec.replicas) > 0
        starting = wanted and listed.servable and not spec.suspend and self._supervisor.desired_replicas(key) == 0
        return self._restarts.held(key, listed.weights.snapshots, starting=starting)
