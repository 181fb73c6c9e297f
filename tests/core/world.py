"""A small simulated world for the planner: gateways with a queue for each model, runners that load, serve and leave.

Time goes in whole seconds. In each second requests arrive and end, loads and unloadings end, the plan is made and
applied, and waiting requests are dispatched, first in first out. What a runner says of itself is late: a request that
it was sent shows only in the next second, and one that it was told to leave with goes back to its place in the queue.
With nodes there is a scheduler: once a second it gives each new runner a node with enough memory, by a rule of its own
that the planner does not know; other people's pods come and go. Without nodes every runner begins at once.
What the planner must never do raises AssertionError where it happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from corral_core.activity import FOREVER, Activity
from corral_core.planner import plan
from corral_core.snapshot import Demand, ModelState, NodeState, Plan, Policy, Replica, Snapshot
from tests.support.planning import needs, node, spec


@dataclass(frozen=True)
class Request:
    model: str
    arrives: int
    lasts: int


@dataclass(frozen=True)
class Kind:
    """How a model behaves in the world."""

    key: str
    keep_alive: float = 5.0
    load_time: int = 2
    leave_time: int = 1
    slots: int = 1
    min_replicas: int = 0
    memory: int = 0


@dataclass(frozen=True)
class Stranger:
    """A pod of other people, which takes memory of a node for a while."""

    node: str
    memory: int
    comes: int
    goes: int


@dataclass(frozen=True)
class Land:
    """The nodes (name to memory), who else uses them, and which of the nodes with room the scheduler takes."""

    nodes: Mapping[str, int] = field(default_factory=dict)
    strangers: tuple[Stranger, ...] = ()
    takes_last: bool = False


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

    def loaded(self, now: int) -> bool:
        return now >= self.started + self.kind.load_time

    def observed(self, now: int) -> Replica:
        loaded, ready_at = self.loaded(now), self.started + self.kind.load_time
        idle_since = self.last_end if self.last_end is not None else ready_at
        expires = idle_since + self.kind.keep_alive if loaded and not self.ends else None
        said = Activity(
            in_flight=len(self.ends),
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
        return Replica(
            self.name,
            loaded,
            self.gone_at is not None,
            self.started,
            said,
            ready_at if loaded else None,
            node=self.node or "",
            holds=dict(needs(self.kind.memory).amounts),
        )


class World:
    def __init__(
        self, kinds: Iterable[Kind], limit: int, requests: Iterable[Request], land: Land | None = None
    ) -> None:
        self.land = land or Land()
        self.kinds = {kind.key: kind for kind in kinds}
        self.policy = Policy(max_loaded=limit)
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
        """Lets time pass until every request was begun, but no further than ``until``."""
        self.step()
        while self.now < until and (self.coming or any(self.waiting.values()) or self._sent()):
            self.step()

    def _sent(self) -> bool:
        return any(runner.sent for runners in self.runners.values() for runner in runners)

    def step(self) -> None:
        self._time_passes()
        self._schedule()
        for _ in range(2 + 2 * len(self.kinds)):  # one Model's way out may open another one's, each in two plans
            self._apply(plan(self.snapshot(), self.now))
            self._dispatch()
        self._planning_again_changes_nothing()
        self.now += 1

    def snapshot(self) -> Snapshot:
        nodes = tuple(
            NodeState(node(name, memory), {"memory": self._taken(name)}) for name, memory in self.land.nodes.items()
        )
        return Snapshot(tuple(self._state(key) for key in self.kinds), self.policy, nodes)

    def _taken(self, name: str) -> int:
        ours = sum(runner.kind.memory for runners in self.runners.values() for runner in runners if runner.node == name)
        theirs = (
            each.memory for each in self.land.strangers if each.node == name and each.comes <= self.now < each.goes
        )
        return ours + sum(theirs)

    def _schedule(self) -> None:
        """Each runner that has none gets a node with room; one whose pod waits has not been started."""
        for runner in [runner for runners in self.runners.values() for runner in runners if runner.node is None]:
            free = {name: memory - self._taken(name) for name, memory in self.land.nodes.items()}
            fitting = sorted(name for name, memory in free.items() if memory >= runner.kind.memory)
            if fitting:
                runner.node = fitting[-1 if self.land.takes_last else 0]
                runner.started = self.now
                self.started += 1

    def _state(self, key: str) -> ModelState:
        queue = self.waiting[key]
        return ModelState(
            key=key,
            created=0.0,
            spec=self.specs[key],
            desired=self.desired[key],
            replicas=tuple(runner.observed(self.now) for runner in self.runners[key] if runner.node is not None),
            demand=Demand(len(queue), queue[0].arrives) if queue else None,
            draining=self.draining[key],
            needs=needs(self.kinds[key].memory),
            place=self.places[key],
        )

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
        """The runner begins what it was sent, and says so from now on."""
        for request in runner.sent:
            runner.ends.append(self.now + request.lasts)
            runner.served += 1
            self.served.append((request, self.now))
        runner.sent = []

    def _leave(self, runner: Runner) -> None:
        """The runner is told to leave: it refuses what it has not begun. Without a node it is gone at once."""
        if runner.node is None:
            self.runners[runner.kind.key].remove(runner)
            return
        runner.gone_at = self.now + runner.kind.leave_time
        queue = self.waiting[runner.kind.key]
        queue[:] = sorted([*runner.sent, *queue], key=lambda request: request.arrives)
        runner.sent = []

    def _apply(self, made: Plan) -> None:
        self._check(made)
        for key, decision in made.decisions.items():
            self.desired[key], self.draining[key] = decision.replicas, decision.draining
            self.places[key] = decision.place
            live = [runner for runner in self.runners[key] if runner.gone_at is None]
            for runner in live[decision.replicas :]:
                self._leave(runner)
            for _ in range(decision.replicas - len(live)):
                self._start(self.kinds[key])

    def _start(self, kind: Kind) -> None:
        begins = not self.land.nodes
        self.runners[kind.key].append(Runner(kind, f"{kind.key}-{self.started}", self.now, node="" if begins else None))
        self.started += begins

    def _check(self, made: Plan) -> None:
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
        assert all(replica.idle for replica in state.live), f"{state.key} is busy or loading"
        for runner in self.runners[state.key]:
            assert runner.gone_at is not None or runner.served, f"{runner.name} leaves before it served anybody"
        if state.demand is not None:
            winner = made.decisions[state.key].yields_to
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
        assert {key: decision.place for key, decision in made.decisions.items()} == self.places
