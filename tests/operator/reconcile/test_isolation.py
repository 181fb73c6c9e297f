"""An error in the processing of one Model leaves the operator and all other Models alone."""

from __future__ import annotations

import pytest

from corral_core.planning.isolated_plan import isolated_plan
from corral_core.planning.planner import plan as real_plan
from corral_core.planning.snapshot import Plan, Snapshot
from corral_operator.reconcile.planning.current_plan import PLAN_KEY
from tests.operator.reconcile.world import World
from tests.support.exposition import sample_value
from tests.support.waiting import auntil

PLANNER = "corral_operator.reconcile.planning.current_plan.plan"


def errors_of(world: World, model: str) -> float | None:
    text = world.metrics.exposition()[0].decode()
    return sample_value(text, "corral_reconcile_errors_total", model=model, kind="internal")


async def test_an_error_of_one_model_is_reported_and_retried_and_the_others_are_reconciled(world: World) -> None:
    world.broken = {"bad"}
    world.model("bad")
    world.model("good", waiting=1)
    await auntil(lambda: world.replicas("good") == 1)
    await auntil(lambda: "bad" in world.reported_errors)
    assert world.reported_errors["bad"] == "OverflowError: cannot convert float infinity to integer"
    await auntil(lambda: (errors_of(world, "lab/bad") or 0) >= 2, what="a retry")
    world.broken = set()
    await auntil(lambda: world.replicas("bad") == 0)
    world.delete_model("bad")
    await auntil(lambda: "lab/bad" in world.forgotten)
    assert "lab/bad" not in world.metrics.exposition()[0].decode()


async def test_a_model_that_cannot_be_planned_is_left_out_of_the_plan(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(snapshot: Snapshot, now: float) -> Plan:
        if any(model.key == "lab/bad" for model in snapshot.models):
            raise RecursionError("maximum recursion depth exceeded")
        return real_plan(snapshot, now)

    monkeypatch.setattr(PLANNER, plan)
    world.model("bad")
    world.model("good", waiting=1)
    await auntil(lambda: world.replicas("good") == 1)
    await auntil(lambda: "bad" in world.reported_errors)
    assert "the planner cannot process it" in world.reported_errors["bad"]
    monkeypatch.setattr(PLANNER, real_plan)
    await world.pass_time(1)
    await auntil(lambda: world.replicas("bad") == 0)


async def test_models_follow_the_last_plan_while_none_can_be_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(snapshot: Snapshot, now: float) -> Plan:
        if len(snapshot.models) > 1:
            raise ValueError("NaN")
        return real_plan(snapshot, now)

    world.model("a", waiting=1)
    await auntil(lambda: world.replicas("a") == 1)
    monkeypatch.setattr(PLANNER, plan)
    world.model("b", waiting=1)
    await auntil(lambda: (errors_of(world, PLAN_KEY) or 0) >= 1)
    assert world.replicas("a") == 1
    monkeypatch.setattr(PLANNER, real_plan)
    await auntil(lambda: world.replicas("b") == 1, what="a plan by the retry alone")


def test_an_error_that_no_single_model_causes_is_raised() -> None:
    def plan(snapshot: Snapshot, now: float) -> Plan:
        raise ValueError("of all together")

    with pytest.raises(ValueError, match="of all together"):
        isolated_plan(Snapshot(()), 0.0, planner=plan)
