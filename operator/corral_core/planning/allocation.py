"""Allocation of the loaded-model limit and of node capacity to Models with pending requests.

A Model needs one unit of ``policy.loaded_limit`` (OLLAMA_MAX_LOADED_MODELS) and capacity on one node. Invariants:

- A Model that should run, and a terminating replica until it is gone, hold both.
- Pending Models are served by the age of their oldest request. One that cannot be served yet keeps its reservation and
  does not block another one that fits beside it.
- Pinned Models start without regard to the limit and may exceed it; idle Models are then unloaded to get back under it.
  They need node capacity like all others.
- A Model that should start and has no node yet is placed again in every plan: it keeps its node while it fits there,
  and otherwise becomes pending, because another pod may have been scheduled first. One that the scheduler has not
  placed within the load timeout holds no node any more.
- A Model that no present node can have room for starts without a node if an autoscaler can add one (``node_pools``).
- Age wins over reservations. An older Model whose node is not free yet may start on a node that is being freed for a
  younger one. The younger one then gets the older one's reservation if it fits there; otherwise another Model is
  evicted for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

from corral_core.base.durations import format_duration
from corral_core.base.quantities import MEMORY
from corral_core.planning.capacity import ANY_NODE, ClusterCapacity, NodeCapacity
from corral_core.planning.eviction import (
    can_drain,
    can_unload,
    drain_deadline,
    eviction_candidates,
    is_pinned,
    is_stalled,
    turn_end,
)
from corral_core.planning.node_pools import PoolCapacity
from corral_core.planning.snapshot import Decision, ModelState, ScaleDownCause, Snapshot
from corral_core.planning.victims import VictimCandidates, VictimFilter, VictimSet, select_victims


def allocate(
    snapshot: Snapshot, settled: Mapping[str, Decision], pending: Sequence[ModelState], *, now: float
) -> dict[str, Decision]:
    """Decide on the ``pending`` Models (requests and no replica) and on the Models to evict for them.

    ``settled`` are the decisions on all other Models, which hold for those that are not evicted.
    """
    allocator = _Allocator(snapshot, settled, now)
    starting = [
        model
        for model in snapshot.models
        if _is_starting(model, settled) and not is_stalled(model, snapshot.policy, now)
    ]
    displaced = allocator.keep_starting(starting) if snapshot.nodes else []
    allocator.unload_above_limit()
    for model in sorted([*displaced, *pending], key=_age):
        allocator.decisions[model.key] = allocator.decide(model)
    return allocator.decisions


class _Allocator:
    """State of one allocation: units of the limit, node capacity, eviction candidates and the decisions so far."""

    def __init__(self, snapshot: Snapshot, settled: Mapping[str, Decision], now: float) -> None:
        running = [model for model in snapshot.models if model.key in settled and settled[model.key].replicas > 0]
        running_keys = {model.key for model in running}
        terminating = [
            model for model in snapshot.models if model.terminating or (model.live and model.key not in running_keys)
        ]
        self.decisions = dict(settled)
        self._now = now
        self._policy = snapshot.policy
        self._limit = snapshot.policy.loaded_limit
        self._free = self._limit - len(running) - len(terminating)
        self._free_later = self._free + len(terminating)
        self._cluster = ClusterCapacity(snapshot.nodes)
        self._pools = PoolCapacity(snapshot.node_pools, [state.node for state in snapshot.nodes])
        self._candidates = VictimCandidates(eviction_candidates(running, snapshot.policy, now))
        for model in snapshot.models if snapshot.nodes else ():
            is_running = model.key in running_keys
            ending = [one for one in model.replicas if one.terminating] if is_running else model.replicas
            self._cluster.release(ending)
            self._cluster.mark_reclaimable(ending if is_pinned(model) else model.replicas)

    def keep_starting(self, starting: Sequence[ModelState]) -> list[ModelState]:
        """Place the starting Models on nodes with free capacity; return the others, which become pending."""
        displaced = []
        for model in sorted(starting, key=_age):
            node = self._cluster.find_now(model.requirements, model.placement)
            if node is not None:
                self._cluster.allocate(node, model.requirements)
                self.decisions[model.key] = replace(self.decisions[model.key], placement=node)
                continue
            if not is_pinned(model):
                self._free += 1
                self._free_later += 1
            displaced.append(model)
        return displaced

    def unload_above_limit(self) -> None:
        """Unload idle Models while more than the limit are loaded, as pinned Models may exceed it."""
        while self._free_later < 0:
            victim = self._candidates.first(lambda model: model.demand is None and can_unload(model, 0.0))
            if victim is None:
                return
            reason = f"unloaded: more than {self._limit} models are loaded (OLLAMA_MAX_LOADED_MODELS)"
            self._evict(victim, Decision(0, reason, cause=ScaleDownCause.LIMIT))

    def decide(self, model: ModelState) -> Decision:
        """Decide on a pending Model: start now, or wait until capacity is freed."""
        decision = self._start(model) or self._wait(model) or self._unload_victims(model)
        decision = decision or self._drain_victims(model) or self._start_on_new_node(model)
        decision = decision or self._wait_without_victims(model)
        if is_pinned(model):
            return replace(self.decisions[model.key], placement=decision.placement)
        return decision

    def _start(self, model: ModelState) -> Decision | None:
        if not is_pinned(model) and (self._free <= 0 or self._free_later <= 0):
            return None
        node = self._cluster.find_now(model.requirements, model.placement)
        if node is None:
            return None
        self._cluster.allocate(node, model.requirements)
        self._take_unit(model)
        return Decision(1, "requests are pending: starting", placement=node)

    def _start_on_new_node(self, model: ModelState) -> Decision | None:
        """Start without a node, so that an autoscaler adds one for the pod."""
        if model.requirements is None or (not is_pinned(model) and (self._free <= 0 or self._free_later <= 0)):
            return None
        pool = self._pools.allocate(model.requirements)
        if pool is None:
            return None
        self._take_unit(model)
        return Decision(1, f"requests are pending: starting when the node pool {pool} has a new node")

    def _take_unit(self, model: ModelState) -> None:
        """Take a unit of the limit for a Model that starts."""
        if not is_pinned(model):
            self._free -= 1
            self._free_later -= 1

    def _wait(self, model: ModelState) -> Decision | None:
        """Wait for terminating replicas, with a reservation."""
        if self._at_limit(model):
            return None
        node = self._cluster.find_later(model.requirements, model.placement)
        if node is None:
            return None
        self._reserve(model, node)
        return _waiting("requests are pending: starts when the model that is being unloaded has terminated", node)

    def _unload_victims(self, model: ModelState) -> Decision | None:
        selected = self._select_victims(model, lambda victim: self._can_unload(victim, model))
        if selected is None:
            return None
        for victim in selected.victims:
            self._evict(victim, self._unloaded_for(model, victim))
        self._reserve(model, selected.node)
        verb = "is" if len(selected.victims) == 1 else "are"
        return _waiting(f"requests are pending: {_keys(selected)} {verb} unloaded to free capacity", selected.node)

    def _drain_victims(self, model: ModelState) -> Decision | None:
        """Evict busy Models, which drain first; idle ones among the victims are unloaded at once."""
        selected = self._select_victims(model, lambda victim: self._can_drain(victim, model))
        if selected is None:
            return None
        for victim in selected.victims:
            unloaded = self._can_unload(victim, model) or self._is_overdue(victim)
            self._evict(victim, (self._unloaded_for if unloaded else self._draining_for)(model, victim))
        self._reserve(model, selected.node)
        return _waiting(f"requests are pending: draining {_keys(selected)} to free capacity", selected.node)

    def _draining_for(self, model: ModelState, victim: ModelState) -> Decision:
        """Return the decision on a busy victim. One that is older than the Model has had its turn."""
        reason = f"draining: finishes its requests, then frees capacity for {model.key}"
        floor = None if can_drain(victim, _oldest_request(model)) else self._now
        current = self.decisions[victim.key]
        return replace(
            current, reason=reason, draining=True, evicted_for=model.key, placement=ANY_NODE, age_floor=floor
        )

    def _unloaded_for(self, model: ModelState, victim: ModelState) -> Decision:
        decision = Decision(
            0, f"unloaded: frees capacity for {model.key}", evicted_for=model.key, cause=ScaleDownCause.ROOM
        )
        if is_stalled(victim, self._policy, self._now):
            timeout = format_duration(self._policy.load_timeout)
            reason = f"load timeout: no progress for {timeout} (OLLAMA_LOAD_TIMEOUT), frees capacity for {model.key}"
            overdue = self._now - self._policy.eviction_timeout  # it has no requests to finish
            return replace(decision, reason=reason, age_floor=self._now, draining_since=overdue)
        if self._is_overdue(victim) and not can_unload(victim, _oldest_request(model)):
            timeout = format_duration(self._policy.eviction_timeout)
            reason = f"unloaded: its requests did not finish within {timeout}, frees capacity for {model.key}"
            return replace(decision, reason=reason, interrupt=True, age_floor=self._now)
        return decision

    def _can_unload(self, victim: ModelState, model: ModelState) -> bool:
        return is_stalled(victim, self._policy, self._now) or can_unload(victim, _oldest_request(model))

    def _can_drain(self, victim: ModelState, model: ModelState) -> bool:
        """Whether the victim may be drained: its requests are younger, or it has had its turn and the Model waited."""
        oldest, end = _oldest_request(model), turn_end(victim, self._policy)
        if can_drain(victim, oldest) or is_stalled(victim, self._policy, self._now):
            return True
        return end is not None and self._now >= max(end, oldest + self._policy.eviction_timeout)

    def _is_overdue(self, victim: ModelState) -> bool:
        """Whether the victim drains since longer than it may."""
        deadline = drain_deadline(victim, self._policy)
        return victim.draining and deadline is not None and self._now >= deadline

    def _wait_without_victims(self, model: ModelState) -> Decision:
        """Wait with a reservation on a node that can have enough capacity eventually."""
        at_limit = self._at_limit(model)
        node = self._attainable_node(model)
        if node is not None and not at_limit:
            self._reserve(model, node)
        elif node is not None:
            self._cluster.reserve(node, model.requirements)
        if at_limit or model.requirements is None:
            return _waiting(self._limit_reason(), node or ANY_NODE)
        return _waiting(f"requests are pending: {self._cluster.reason_not_now(model.requirements)}", node or ANY_NODE)

    def _at_limit(self, model: ModelState) -> bool:
        return self._free_later <= 0 and not is_pinned(model)

    def _select_victims(self, model: ModelState, allowed: VictimFilter) -> VictimSet | None:
        minimum = 1 if self._at_limit(model) else 0
        return select_victims(
            self._cluster,
            model.requirements,
            model.placement,
            candidates=self._candidates,
            allowed=allowed,
            minimum=minimum,
        )

    def _evict(self, victim: ModelState, decision: Decision) -> None:
        """Evict a Model: its unit of the limit and its capacity become free later."""
        self._candidates.remove(victim)
        self._free_later += 1
        self._cluster.release(victim.live)
        self.decisions[victim.key] = decision

    def _reserve(self, model: ModelState, node: str) -> None:
        self._cluster.reserve(node, model.requirements)
        if not is_pinned(model):
            self._free_later -= 1

    def _attainable_node(self, model: ModelState) -> str | None:
        if model.requirements is None:
            return None
        nodes = self._cluster.attainable_nodes(model.requirements)
        if model.placement in nodes:
            return model.placement
        return min(nodes, key=lambda name: _reclaimable_memory(nodes[name]), default=None)

    def _limit_reason(self) -> str:
        return (
            f"requests are pending: the limit of {self._limit} loaded models (OLLAMA_MAX_LOADED_MODELS) is reached by "
            "models that are pinned, loading, or have older pending requests"
        )


def _is_starting(model: ModelState, settled: Mapping[str, Decision]) -> bool:
    """Whether the Model should run and has no node yet."""
    return model.key in settled and settled[model.key].replicas > 0 and not model.live


def _age(model: ModelState) -> tuple[bool, float, float, str]:
    """Order pinned Models first, then by the oldest pending request."""
    return not is_pinned(model), (model.demand.oldest if model.demand else 0.0), model.created, model.key


def _oldest_request(model: ModelState) -> float:
    """Return the arrival time against which the pending requests of victims are compared."""
    if is_pinned(model):
        return -inf
    return model.demand.oldest if model.demand else 0.0


def _reclaimable_memory(capacity: NodeCapacity) -> tuple[int, str]:
    """Order nodes by reclaimable memory, largest first, which is constant while Models wait."""
    return -capacity.reclaimable.get(MEMORY, 0), capacity.node.name


def _keys(selected: VictimSet) -> str:
    return ", ".join(victim.key for victim in selected.victims)


def _waiting(reason: str, node: str) -> Decision:
    return Decision(0, reason, waiting_for_capacity=True, placement=node)
