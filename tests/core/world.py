"""Simulation for planner tests: gateways with one queue per model, runners that load, serve and terminate.

- Time advances in whole seconds. In each second requests arrive and complete, loads and terminations complete, the plan
  is made and applied, and pending requests are dispatched first in, first out.
- Runner status lags: a dispatched request is visible only in the next second, and a request that was sent to a
  terminating runner returns to its position in the queue.
- With nodes, a scheduler binds each new runner once a second to a node with enough of everything, by a rule that the
  planner does not know, and other pods start and terminate. Without nodes every runner starts at once.
- Nodes can have GPUs: exclusive ones, MIG slices, and shared ones, whose memory is counted.
- Forbidden plans raise AssertionError at the step that makes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from corral_core.base.durations import FOREVER
from corral_core.base.quantities import sum_amounts
from corral_core.contracts.runner_status import RunnerStatus
from corral_core.planning.gpus.offers import pod_gpu_memory
from corral_core.planning.load_progress import LoadProgress
from corral_core.planning.node import Node, PodRequirements
from corral_core.planning.node_fit import fits
from corral_core.planning.plan_memory import PlanMemory
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Demand, ModelState, NodeState, Plan, Policy, Replica, Snapshot
from tests.support.planning import GPU, node, pod_requirements, spec

FAR = 1 << 40
"""A time that is never reached."""


@dataclass(frozen=True)
class Request:
    model: str
    arrives: int
    lasts: int


@dataclass(frozen=True)
class Kind:
    """Behaviour of a simulated model."""

    key: str
    keep_alive: float = 5.0
    load_time: int = 2
    leave_time: int = 1
    slots: int = 1
    min_replicas: int = 0
    memory: int = 0
    gpus: int = 0
    gpu_memory: int = 0
    resource: str = GPU
    hostile: str = ""
    """``busy``: never ends a request and ignores SIGTERM; ``loading``: never loads; ``silent``: also has no status."""

    @cached_property
    def requirements(self) -> PodRequirements:
        gpus = {self.resource: self.gpus} if self.gpus else {}
        return replace(pod_requirements(self.memory, **gpus), gpu_memory=self.gpu_memory)

    @cached_property
    def amounts(self) -> dict[str, int]:
        """What a runner takes of its node."""
        requests = dict(self.requirements.requests)
        return requests | pod_gpu_memory(requests, self.gpu_memory)


@dataclass(frozen=True)
class Stranger:
    """A foreign pod that uses memory of a node for a limited time."""

    node: str
    memory: int
    comes: int
    goes: int


@dataclass(frozen=True)
class Land:
    """Nodes (name to memory), nodes with GPUs, foreign pods, and which feasible node the scheduler selects."""

    nodes: Mapping[str, int] = field(default_factory=dict)
    strangers: tuple[Stranger, ...] = ()
    takes_last: bool = False
    gpu_nodes: tuple[Node, ...] = ()


@dataclass
class Runner:
    kind: Kind
    name: str
    started: int
    gone_at: int | None = None
    sent: list[Request] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    last_end: int | None = None
    served: int = 0
    node: str | None = None
    progress: LoadProgress | None = None

    def loaded(self, now: int) -> bool:
        return not self.kind.hostile.endswith(("loading", "silent")) and now >= self.started + self.kind.load_time

    def observed(self, now: int) -> Replica:
        said = self._said(now)
        self.progress = progress = self.progress or LoadProgress(self.started)
        progress.observe_status(said, now)
        loaded = self.loaded(now)
        return Replica(
            self.name,
            loaded,
            self.gone_at is not None,
            self.started,
            said,
            self.started + self.kind.load_time if loaded else None,
            node=self.node or "",
            requests=self.kind.amounts,
            progress_at=progress.progress_at,
        )

    def _said(self, now: int) -> RunnerStatus | None:
        if self.kind.hostile == "silent":
            return None
        loaded, ready_at = self.loaded(now), self.started + self.kind.load_time
        idle_since = self.last_end if self.last_end is not None else ready_at
        expires = idle_since + self.kind.keep_alive if loaded and not self.ends else None
        return RunnerStatus(
            in_flight=max(len(self.ends), self.kind.hostile == "busy"),
            waiting=0,
            slots=self.kind.slots,
            loaded=loaded,
            draining=False,
            keep_alive=self.kind.keep_alive,
            last_end=self.last_end,
            expires_at=None if expires == FOREVER else expires,
            size_bytes=1,
            vram_bytes=0,
            context_length=1,
        )


class World:
    def __init__(
        self,
        kinds: Iterable[Kind],
        limit: int,
        requests: Iterable[Request],
        land: Land | None = None,
        *,
        policy: Policy | None = None,
    ) -> None:
        self.land = land or Land()
        plain = [node(name, memory) for name, memory in self.land.nodes.items()]
        self.nodes = {each.name: each for each in (*plain, *self.land.gpu_nodes)}
        self.kinds = {kind.key: kind for kind in kinds}
        self.policy = replace(policy or Policy(), max_loaded=limit)
        self.memory = PlanMemory()
        self.coming = sorted(requests, key=lambda request: request.arrives)
        self.waiting: dict[str, list[Request]] = {key: [] for key in self.kinds}
        self.runners: dict[str, list[Runner]] = {key: [] for key in self.kinds}
        self.desired = dict.fromkeys(self.kinds, 0)
        self.draining = dict.fromkeys(self.kinds, False)
        self.places = dict.fromkeys(self.kinds, "")
        self.started = self.now = 0
        self.specs = {key: spec(min_replicas=kind.min_replicas) for key, kind in self.kinds.items()}
        self.served: list[tuple[Request, int]] = []

    def run(self, until: int) -> None:
        """Advance time until every request has started, at most to ``until``."""
        self.step()
        while self.now < until and (self.coming or any(self.waiting.values()) or self.sent()):
            self.step()

    def sent(self) -> bool:
        return any(runner.sent for runners in self.runners.values() for runner in runners)

    def step(self) -> None:
        self._time_passes()
        self._schedule()
        for _ in range(2 + 2 * len(self.kinds)):  # one eviction may enable another, each in two plans
            before = self._intent()
            snapshot = self.snapshot()
            self._apply(self.memory.adopt(snapshot, plan(snapshot, self.now), self.now))
            self._dispatch()
            if self._intent() == before:
                break
        self._planning_again_changes_nothing()
        self.now += 1

    def _intent(self) -> list[object]:
        queued = [len(queue) for queue in self.waiting.values()]
        return [*self.desired.values(), *self.draining.values(), *self.places.values(), *queued]

    def snapshot(self) -> Snapshot:
        nodes = tuple(NodeState(each, self._taken(name)) for name, each in self.nodes.items())
        return Snapshot(tuple(self._state(key) for key in self.kinds), self.policy, nodes)

    def _taken(self, name: str) -> dict[str, int]:
        ours = [runner.kind.amounts for runners in self.runners.values() for runner in runners if runner.node == name]
        strangers = [
            {"memory": each.memory}
            for each in self.land.strangers
            if each.node == name and each.comes <= self.now < each.goes
        ]
        return sum_amounts((*ours, *strangers))

    def _schedule(self) -> None:
        """Bind each unbound runner to a node with enough of everything; an unbound runner has not started."""
        for runner in [runner for runners in self.runners.values() for runner in runners if runner.node is None]:
            wanted = runner.kind.requirements
            fitting = sorted(name for name in self.nodes if fits(self._free(name), wanted))
            if fitting:
                runner.node = fitting[-1 if self.land.takes_last else 0]
                runner.started = self.now
                self.started += 1

    def _free(self, name: str) -> dict[str, int]:
        taken = self._taken(name)
        return {resource: number - taken.get(resource, 0) for resource, number in self.nodes[name].allocatable.items()}

    def _state(self, key: str) -> ModelState:
        queue = self.waiting[key]
        state = ModelState(
            key=key,
            created=0.0,
            spec=self.specs[key],
            desired=self.desired[key],
            replicas=tuple(runner.observed(self.now) for runner in self.runners[key] if runner.node is not None),
            demand=Demand(len(queue), queue[0].arrives) if queue else None,
            requirements=self.kinds[key].requirements,
        )
        return self.memory.complete(state)

    def _time_passes(self) -> None:
        while self.coming and self.coming[0].arrives <= self.now:
            request = self.coming.pop(0)
            self.waiting[request.model].append(request)
        for key, runners in self.runners.items():
            for runner in runners:
                self._begin(runner)
                ended = [end for end in runner.ends if end <= self.now]
                runner.ends = [end for end in runner.ends if end > self.now]
                runner.last_end = self.now if ended else runner.last_end
            self.runners[key] = [r for r in runners if r.gone_at is None or r.gone_at > self.now or r.ends]

    def _begin(self, runner: Runner) -> None:
        """Start the requests that were dispatched to the runner, which its status shows from now on."""
        for request in runner.sent:
            runner.ends.append(FAR if runner.kind.hostile else self.now + request.lasts)
            runner.served += 1
            self.served.append((request, self.now))
        runner.sent = []

    def _leave(self, runner: Runner) -> None:
        """Terminate the runner: it rejects requests that it has not started. Without a node it is gone at once."""
        if runner.node is None:
            self.runners[runner.kind.key].remove(runner)
            return
        runner.gone_at = self.now + runner.kind.leave_time
        if runner.kind.hostile:
            runner.ends.append(FAR)  # it ignores SIGTERM
        queue = self.waiting[runner.kind.key]
        queue[:] = sorted([*runner.sent, *queue], key=lambda request: request.arrives)
        runner.sent = []

    def _apply(self, made: Plan) -> None:
        self._check(made)
        for key, decision in made.decisions.items():
            self.desired[key], self.draining[key] = decision.replicas, decision.draining
            self.places[key] = decision.placement
            live = [runner for runner in self.runners[key] if runner.gone_at is None]
            for runner in live[decision.replicas :]:
                self._leave(runner)
            for _ in range(decision.replicas - len(live)):
                self._start(self.kinds[key])
            if decision.interrupt:
                self._interrupt(key)

    def _interrupt(self, key: str) -> None:
        """End the requests of the terminating runners, which then exit."""
        for runner in self.runners[key]:
            if runner.gone_at is not None:
                runner.ends = []

    def _start(self, kind: Kind) -> None:
        begins = not self.nodes
        self.runners[kind.key].append(Runner(kind, f"{kind.key}-{self.started}", self.now, node="" if begins else None))
        self.started += begins

    def _check_nodes(self, made: Plan) -> None:
        """Assert that what starts fits beside all that is on its node, in bytes and in devices."""
        for name in {decision.placement for decision in made.decisions.values() if decision.replicas} & set(self.nodes):
            starting = [
                self.kinds[key].amounts
                for key, decision in made.decisions.items()
                if decision.replicas and decision.placement == name and not self._bound(key)
            ]
            if starting:
                taken = sum_amounts((*starting, self._taken(name)))
                amounts = self.nodes[name].allocatable.items()
                assert all(taken.get(resource, 0) <= number for resource, number in amounts), name

    def _bound(self, key: str) -> bool:
        return any(runner.node is not None and runner.gone_at is None for runner in self.runners[key])

    def _check(self, made: Plan) -> None:
        self._check_nodes(made)
        for key, decision in made.decisions.items():
            state = self._state(key)
            if decision.replicas < len(state.live):
                self._may_leave(state, made)
            assert not (decision.draining and self.kinds[key].min_replicas), f"{key} is pinned"
        running = [key for key, decision in made.decisions.items() if decision.replicas > 0]
        leaving = [key for key in self.kinds if any(r.gone_at is not None for r in self.runners[key])]
        pinned = [key for key, kind in self.kinds.items() if kind.min_replicas]
        assert len(running) + len(leaving) <= max(self.policy.loaded_limit, len(pinned)) + len(pinned)
        if not pinned:
            assert len(running) + len(leaving) <= self.policy.loaded_limit

    def _may_leave(self, state: ModelState, made: Plan) -> None:
        assert not state.spec.min_replicas, f"{state.key} is pinned"
        if self.kinds[state.key].hostile or made.decisions[state.key].interrupt:
            return
        assert all(replica.idle for replica in state.live), f"{state.key} is busy or loading"
        for runner in self.runners[state.key]:
            assert runner.gone_at is not None or runner.served, f"{runner.name} leaves before it served anybody"
        if state.demand is not None:
            winner = made.decisions[state.key].evicted_for
            assert winner is not None, f"{state.key} is waited for"
            assert self.waiting[winner][0].arrives < state.demand.oldest, f"{state.key} is waited for longer"

    def _dispatch(self) -> None:
        for key, queue in self.waiting.items():
            for runner in self.runners[key]:
                loaded = runner.node is not None and runner.loaded(self.now)
                routable = loaded and runner.gone_at is None and not self.draining[key]
                while queue and routable and len(runner.ends) + len(runner.sent) < runner.kind.slots:
                    runner.sent.append(queue.pop(0))

    def _planning_again_changes_nothing(self) -> None:
        made = plan(self.snapshot(), self.now)
        assert {key: decision.replicas for key, decision in made.decisions.items()} == self.desired
        assert {key: decision.draining for key, decision in made.decisions.items()} == self.draining
        assert {key: decision.placement for key, decision in made.decisions.items()} == self.places
