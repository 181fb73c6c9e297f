"""The planner's loop in local mode: observe, plan, act, whenever something changed or time alone changes the answer.

Other processes' memory comes and goes unsaid, so while somebody waits for room it is looked at every second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from corral_core.planner import plan
from corral_core.snapshot import Decision, ModelState, Plan, Policy, Snapshot
from corral_server.local.child import label
from corral_server.local.directory import LocalDirectory
from corral_server.local.files import Listed
from corral_server.local.logs import EventLog
from corral_server.local.memory import on_this_machine
from corral_server.local.sizes import NO_SETTINGS, Sizes
from corral_server.local.supervisor import Supervisor

_REMOVED = "the Model was removed"
LONGEST_WAIT = 60.0
"""Seconds after which it looks again in any case: clocks are set, laptops sleep."""
ROOM_EVERY = 1.0
"""Seconds after which it looks again while requests wait for room."""


def unknown(_runners: Collection[int]) -> int | None:
    """The capacity of a machine whose memory is not counted."""
    return None


class Controller:
    """``capacity`` tells the bytes that all runners (process ids) may have together, None: not known.

    ``environ`` is what runners are started with.
    """

    def __init__(
        self,
        directory: LocalDirectory,
        supervisor: Supervisor,
        policy: Policy,
        log: EventLog,
        *,
        capacity: Callable[[Collection[int]], int | None] = unknown,
        environ: Mapping[str, str] = NO_SETTINGS,
    ) -> None:
        self._directory = directory
        self._supervisor = supervisor
        self._policy = policy
        self._log = log
        self._capacity = capacity
        self._sizes = Sizes(environ)
        self._places: dict[str, str] = {}
        self._awake = asyncio.Event()

    def wake(self) -> None:
        """There is something new to look at."""
        self._awake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._awake.clear()
            made = self.step(time.time())
            waits = any(decision.waiting_for_capacity for decision in made.decisions.values())
            wait = ROOM_EVERY if waits else LONGEST_WAIT
            if made.next is not None:
                wait = min(wait, max(0.0, made.next - time.time()))
            try:
                async with asyncio.timeout(wait):
                    await self._awake.wait()
            except TimeoutError:
                continue

    def step(self, now: float) -> Plan:
        """Plans once and applies the plan."""
        listed = {each.model.key: each for each in self._directory.listed()}
        made = plan(self._snapshot(listed), now)
        self._places = {key: decision.place for key, decision in made.decisions.items() if decision.place}
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
        settings = self._sizes.settings(key)
        self._supervisor.scale(listed.model, listed.digest, decision.replicas, settings=settings)

    def _snapshot(self, listed: dict[str, Listed]) -> Snapshot:
        states = [self._state(each) for each in listed.values()]
        for model in self._supervisor.models():
            if model.key not in listed:
                replicas = self._supervisor.replicas(model.key)
                states.append(ModelState(model.key, model.created, model.spec, 0, replicas, refused=_REMOVED))
        capacity = self._capacity(self._supervisor.processes())
        if capacity is None:
            return Snapshot(tuple(states), self._policy)
        running = {state.key for state in states if state.replicas}
        self._sizes.look(listed.values(), running=running, capacity=capacity)
        placed, machine = on_this_machine(states, self._sizes.sizes, capacity)
        return Snapshot(placed, self._policy, (machine,))

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
            place=self._places.get(model.key, ""),
        )
