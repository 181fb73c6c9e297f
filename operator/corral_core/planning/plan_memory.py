"""Memory of earlier plans: what the next plan needs of them and what no observed object tells.

The planner itself is pure. Operator and local mode keep one ``PlanMemory``, complete each Model of a snapshot by it and
hand it each plan. It is lost with the process, which only starts deadlines again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from corral_core.planning.snapshot import Decision, Demand, ModelState, Plan, Snapshot

RESUME_SHARE = 0.05
"""Share of the eviction timeout within which a drain that starts again continues: clients that time out and retry do
not extend its deadline."""


@dataclass(slots=True)
class _Memory:
    """What is kept of one Model; times in Unix seconds."""

    draining_since: float | None = None
    drained_until: float = 0.0
    starting_since: float | None = None
    loaded_since: float | None = None
    age_floor: float = 0.0


class PlanMemory:
    def __init__(self) -> None:
        self._decisions: Mapping[str, Decision] = {}
        self._models: dict[str, _Memory] = {}

    def complete(self, state: ModelState, *, draining: bool = False) -> ModelState:
        """Return the Model with what the last plan decided; ``draining`` counts if there was no plan of this Model."""
        decision, memory = self._decisions.get(state.key), self._models.get(state.key, _Memory())
        demand = state.demand
        if demand is not None and demand.oldest < memory.age_floor:
            demand = Demand(demand.waiting, memory.age_floor)
        return replace(
            state,
            demand=demand,
            draining=decision.draining if decision is not None else draining,
            placement=decision.placement if decision is not None else "",
            draining_since=decision.draining_since if decision is not None else None,
            starting_since=memory.starting_since,
            loaded_since=memory.loaded_since,
        )

    def adopt(self, snapshot: Snapshot, plan: Plan, now: float) -> Plan:
        """Keep the plan of the snapshot; return it with the beginnings of drains that are resumed."""
        decisions = dict(plan.decisions)
        models = {}
        for model in snapshot.models:
            memory = self._models.get(model.key) or _Memory()
            decisions[model.key] = decision = _resumed(decisions[model.key], memory, now)
            _update(memory, model, decision, now=now, resume=RESUME_SHARE * snapshot.policy.eviction_timeout)
            models[model.key] = memory
        self._models, self._decisions = models, decisions
        return replace(plan, decisions=decisions)


def _resumed(decision: Decision, memory: _Memory, now: float) -> Decision:
    if not decision.draining or memory.draining_since is None or decision.draining_since != now:
        return decision
    return replace(decision, draining_since=memory.draining_since)


def _update(memory: _Memory, model: ModelState, decision: Decision, *, now: float, resume: float) -> None:
    if decision.draining:
        memory.draining_since, memory.drained_until = decision.draining_since, now
    elif now > memory.drained_until + resume:
        memory.draining_since = None
    if decision.replicas > 0 and not model.live:
        memory.starting_since = now if memory.starting_since is None else memory.starting_since
    else:
        memory.starting_since = None
    if decision.replicas == 0:
        memory.loaded_since = None
    elif memory.loaded_since is None and any(one.status is not None and one.status.loaded for one in model.live):
        memory.loaded_since = now
    memory.age_floor = max(memory.age_floor, decision.age_floor or 0.0)
