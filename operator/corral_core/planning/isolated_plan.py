"""Planning with errors isolated per Model: one whose state makes the planner raise is left out of the plan.

The planner sees all Models at once. Without isolation, a value that it does not expect in one Model would end the
planning for every Model. Models that are left out keep their replicas until their state changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from corral_core.planning.snapshot import ModelState, Plan, Snapshot

Planner = Callable[[Snapshot, float], Plan]


@dataclass(frozen=True, slots=True)
class IsolatedPlan:
    """``errors`` are the Models that were left out of ``snapshot``, each with the planner's error."""

    plan: Plan
    snapshot: Snapshot
    errors: Mapping[str, Exception]


def isolated_plan(snapshot: Snapshot, now: float, *, planner: Planner) -> IsolatedPlan:
    """Plan; if that raises, find the Models that cannot be planned alone and plan for the others.

    Raises the planner's error if no single Model causes it.
    """
    try:
        return IsolatedPlan(planner(snapshot, now), snapshot, {})
    except Exception:  # of any kind: the search below finds the Model whose state causes it
        errors = {model.key: found for model in snapshot.models if (found := _error_of(model, snapshot, now, planner))}
        if not errors:
            raise
        rest = tuple(model for model in snapshot.models if model.key not in errors)
        reduced = replace(snapshot, models=rest)
        return IsolatedPlan(planner(reduced, now), reduced, errors)


def _error_of(model: ModelState, snapshot: Snapshot, now: float, planner: Planner) -> Exception | None:
    try:
        planner(replace(snapshot, models=(model,)), now)
    except Exception as error:  # as above
        return error
    return None
