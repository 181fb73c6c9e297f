"""Observe, plan, act: what is heard is kept, the planner decides about all Models, and each Model is made so.

Level, not edge: hearing something only marks the plan as stale and a Model as to be looked at. Workers plan anew when
the plan is stale, and then make one Model's objects and status be as the plan says, whatever led there. So nothing
depends on the order of messages, and a process that starts anew carries on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from corral_core.activity import FOREVER, Activity
from corral_core.planner import plan
from corral_core.snapshot import Decision, Plan, Policy
from corral_kube.errors import KubeError
from corral_operator import logs
from corral_operator.actor import Foreign
from corral_operator.metrics import Measures
from corral_operator.objects import ModelObject
from corral_operator.observe import RunnerInfo, Store
from corral_operator.status import View
from corral_operator.workqueue import WorkQueue

PLAN = ""
"""The queue's key for planning anew because of time alone."""

CALM = 2.0
"""Seconds for which ordinary traffic's activity is gathered before anybody looks at it."""

SETTLING = 0.1
"""Seconds for which changes around the Models are gathered: in a large cluster pods come and go all the time."""

REASON_EVERY = 5.0
"""Seconds for which a waiting Model's reason stays: how much is free changes with every pod that comes or goes."""

BLOCKED = 30.0
"""Seconds after which it is tried again to make objects whose names somebody else has."""


class Acting(Protocol):
    """Makes what a Model owns be as decided; ``actor.Actor``."""

    async def ensure(self, item: ModelObject, replicas: int) -> None: ...

    def forget(self, model: str) -> None: ...


class Reporting(Protocol):
    """Writes a Model's status when it changed; ``reporter.Reporter``. Returns when to look again, in seconds."""

    async def report(self, view: View) -> float | None: ...

    def forget(self, model: str) -> None: ...


class Controller:
    """All methods are called on one event loop. Nothing is done while ``may_act`` says no."""

    def __init__(
        self,
        store: Store,
        queue: WorkQueue,
        *,
        policy: Policy,
        actor: Acting,
        reporter: Reporting,
        may_act: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        measures: Measures | None = None,
    ) -> None:
        self._measures = measures or Measures()
        self._store = store
        self._queue = queue
        self._policy = policy
        self._actor = actor
        self._reporter = reporter
        self._may_act = may_act
        self._clock = clock
        self._plan = Plan({})
        self._blocked: dict[str, str] = {}
        self._told_at: dict[str, float] = {}
        self._stale = True
        self._pressed = False

    def changed(self, model: str) -> None:
        """Something about the Model is new."""
        self._stale = True
        self._queue.add(model)

    def heard(self, model: str, runner: str, activity: Activity | None) -> None:
        """What a runner (its pod's uid) of the Model said, or None when it cannot be asked."""
        before = self._store.activities.get(runner)
        if activity is None:
            self._store.activities.pop(runner, None)
        else:
            self._store.activities[runner] = activity
        self._stale = True
        delay = 0.0 if self._pressed else _patience(before, activity, self._clock())
        self._queue.add_after(model, delay)

    def surrounded(self, wide: bool) -> None:
        """Something about the nodes is new, or about others' pods there, which matter only while somebody waits."""
        self._stale = True
        if wide or self._pressed:
            self._queue.add_after(PLAN, SETTLING)

    def told(self, model: str, runner: str, info: RunnerInfo) -> None:
        """What a runner has told of its model after loading."""
        self._store.infos[runner] = info
        self.changed(model)

    async def work(self) -> None:
        """Handles keys for ever; several of these run side by side."""
        while True:
            key = await self._queue.get()
            try:
                if self._may_act():
                    await self.handle(key)
                    self._queue.succeeded(key)
                else:
                    self._queue.add_after(key, CALM)
            except KubeError as error:
                delay = self._queue.retry(key)
                logs.event("retry", level=logging.WARNING, model=key, error=str(error), in_s=delay)
            finally:
                self._queue.done(key)

    async def handle(self, key: str) -> None:
        """Plans if need be, and makes the Model be as planned. Raises KubeError."""
        if self._stale or key == PLAN:
            self._replan()
        if key == PLAN:
            return
        item = self._store.models.get(key)
        if item is None or item.meta.deleted:
            self._actor.forget(key)
            self._reporter.forget(key)
            self._blocked.pop(key, None)
            self._told_at.pop(key, None)
            return
        if await self._make(item):
            await self._tell(key)

    def _replan(self) -> None:
        began = time.perf_counter()
        now = self._clock()
        before = self._plan.decisions
        self._stale = False
        places = {key: decision.place for key, decision in before.items() if decision.place}
        made = plan(self._store.snapshot(self._policy, now, self._drains, places), now)
        decisions = {key: self._steady(key, before.get(key), decision, now) for key, decision in made.decisions.items()}
        self._plan = Plan(decisions, made.next)
        self._pressed = any(decision.waiting_for_capacity for decision in decisions.values())
        for key, decision in decisions.items():
            old = before.get(key)
            if old != decision:
                self._queue.add(key)
            item = self._store.models.get(key)
            self._measures.decided(old, decision, item.model.spec if item is not None and item.model else None)
            if old is None or old.replicas != decision.replicas:
                logs.event("decided", model=key, replicas=decision.replicas, reason=decision.reason)
        self._measures.plan.observe(time.perf_counter() - began)
        times = [self._plan.next, self._store.next_demand_end(now)]
        known = [when for when in times if when is not None]
        if known:
            self._queue.add_after(PLAN, max(min(known) - now, 0.0) + 0.005)

    def _steady(self, key: str, old: Decision | None, new: Decision, now: float) -> Decision:
        """The new one; but the old one when only the numbers in its reason differ, and they were told just now."""
        waits = old is not None and old.waiting_for_capacity and new.waiting_for_capacity
        if old is None or not waits or old == new or replace(new, reason=old.reason) != old:
            self._told_at[key] = now
            return new
        due = self._told_at.get(key, now) + REASON_EVERY
        if now >= due:
            self._told_at[key] = now
            return new
        self._queue.add_after(PLAN, due - now)
        return old

    def _drains(self, model: str) -> bool:
        """Whether the last plan let the Model drain; that of the process before this one is in the status."""
        decision = self._plan.decisions.get(model)
        if decision is not None:
            return decision.draining
        item = self._store.models.get(model)
        return item is not None and item.status.get("phase") == "Draining"

    async def _make(self, item: ModelObject) -> bool:
        """Whether the plan still holds: what was just written may ask for something else of a node than it knew."""
        decision = self._plan.decisions.get(item.meta.key)
        if item.model is None or decision is None:
            return True
        if self._store.lost_name(item.meta.key) and not self._store.deployments.of_model(item.meta.key):
            return True
        needed = self._store.needs(item.meta.key)
        try:
            await self._actor.ensure(item, decision.replicas)
            self._blocked.pop(item.meta.key, None)
        except Foreign as error:
            self._blocked[item.meta.key] = str(error)
            self._queue.add_after(item.meta.key, BLOCKED)
        holds = self._store.needs(item.meta.key) == needed
        if not holds:
            self.changed(item.meta.key)
        return holds

    async def _tell(self, key: str) -> None:
        item = self._store.models.get(key)
        if item is None or item.meta.deleted:
            return
        again = await self._reporter.report(self._view(item))
        if again is not None:
            self._queue.add_after(key, again)

    def _view(self, item: ModelObject) -> View:
        key = item.meta.key
        pods = sorted(self._store.pods.of_model(key), key=lambda pod: pod.started_at)
        staying = [pod for pod in pods if not pod.meta.deleted and not pod.finished]
        infos = [info for pod in staying if (info := self._store.infos.get(pod.meta.uid)) is not None]
        said = [self._store.activities.get(pod.meta.uid) for pod in staying if pod.ready]
        ends = [end for activity in said if (end := _end(activity, self._clock())) is not None]
        return View(
            item=item,
            decision=self._plan.decisions.get(key),
            refused=self._store.lost_name(key) or self._blocked.get(key),
            pods=[pod for pod in pods if not pod.finished],
            info=infos[-1] if infos else None,
            expires_at=max(ends) if ends and len(ends) == len(said) else None,
            facts=self._store.facts(key),
            inspector=self._store.inspector(key),
            refusal=next(
                (one.trouble for one in self._store.deployments.of_model(key) if one.trouble),
                self._store.refusals.get(key),
            ),
        )


def _end(activity: Activity | None, now: float) -> float | None:
    """When a runner's keep_alive runs out if nobody asks any more; None: never, or not known."""
    if activity is None or not activity.busy:
        return activity.expires_at if activity is not None else None
    return now + activity.keep_alive if activity.loaded and activity.keep_alive < FOREVER else None


def _patience(before: Activity | None, after: Activity | None, now: float) -> float:
    """For how long (seconds) a change of activity cannot matter; most are ordinary traffic."""
    if before is None or after is None:
        return 0.0
    if before.loaded != after.loaded or before.draining != after.draining:
        return 0.0
    return CALM if after.expires_at is None else min(CALM, max(after.expires_at - now, 0.0))
