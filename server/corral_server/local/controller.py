"""The planner's loop in local mode: observe, plan, act, whenever something changed or time alone changes the answer."""

from __future__ import annotations

import asyncio
import time

from corral_core.planner import plan
from corral_core.snapshot import Decision, ModelState, Plan, Policy, Snapshot
from corral_server.local.child import label
from corral_server.local.directory import LocalDirectory
from corral_server.local.files import Listed
from corral_server.local.logs import EventLog
from corral_server.local.supervisor import Supervisor

_REMOVED = "the Model was removed"
LONGEST_WAIT = 60.0
"""Seconds after which it looks again in any case: clocks are set, laptops sleep."""


class Controller:
    def __init__(self, directory: LocalDirectory, supervisor: Supervisor, policy: Policy, log: EventLog) -> None:
        self._directory = directory
        self._supervisor = supervisor
        self._policy = policy
        self._log = log
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """There is something new to look at."""
        self._awake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._awake.clear()
            made = self.step(time.time())
            wait = LONGEST_WAIT if made.next is None else min(LONGEST_WAIT, max(0.0, made.next - time.time()))
            try:
                async with asyncio.timeout(wait):
                    await self._awake.wait()
            except TimeoutError:
                continue

    def step(self, now: float) -> Plan:
        """Plans once and applies the plan."""
        listed = {each.model.key: each for each in self._directory.listed()}
        made = plan(self._snapshot(listed), now)
        for key, decision in made.decisions.items():
            if key in listed:
                self._apply(listed[key], decision)
            else:
                self._supervisor.remove(key)
        return made

    def _apply(self, listed: Listed, decision: Decision) -> None:
        key = listed.model.key
        before = self._supervisor.wanted(key), self._directory.draining(key)
        if (decision.replicas, decision.draining) != before:
            name = label(listed.model)
            said = {"replicas": decision.replicas, "draining": decision.draining, "reason": decision.reason}
            self._log.event("plan", name, **said)
        self._directory.drain(key, decision.draining)
        self._supervisor.scale(listed.model, listed.digest, decision.replicas)

    def _snapshot(self, listed: dict[str, Listed]) -> Snapshot:
        states = [self._state(each) for each in listed.values()]
        for model in self._supervisor.models():
            if model.key not in listed:
                replicas = self._supervisor.replicas(model.key)
                states.append(ModelState(model.key, model.created, model.spec, 0, replicas, refused=_REMOVED))
        return Snapshot(tuple(states), self._policy)

    def _state(self, listed: Listed) -> ModelState:
        model = listed.model
        return ModelState(
            key=model.key,
            created=model.created,
            spec=model.spec,
            desired=self._supervisor.wanted(model.key),
            replicas=self._supervisor.replicas(model.key),
            demand=self._directory.wanted(model.key),
            refused=self._directory.refused(model.key),
            draining=self._directory.draining(model.key),
        )
