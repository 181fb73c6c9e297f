"""An error in the processing of one Model leaves local mode and all other Models alone."""

from __future__ import annotations

import pytest

from corral_core.planning.planner import plan as real_plan
from corral_core.planning.snapshot import Plan, Snapshot
from corral_server.local.controller import LocalController
from tests.local.local_stack import local_stack
from tests.local.parts import model
from tests.support.waiting import auntil

pytestmark = pytest.mark.process
PLANNER = "corral_server.local.controller.plan"


async def test_a_model_that_cannot_be_planned_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(snapshot: Snapshot, now: float) -> Plan:
        if any(state.key == "default/bad" for state in snapshot.models):
            raise RecursionError("maximum recursion depth exceeded")
        return real_plan(snapshot, now)

    monkeypatch.setattr(PLANNER, plan)
    async with local_stack() as made:
        made.serve(model("bad"), model("good"))
        await made.serve_one("good")
        assert {event["model"] for event in made.log.events("reconcile_failed")} == {"default/bad"}


async def test_a_plan_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral_server.local.controller.RETRY_DELAY", 0.01)
    failures = iter((OverflowError("a number"), OverflowError("a number")))
    real_step = LocalController.step

    def step(self: LocalController, now: float) -> Plan:
        error = next(failures, None)
        if error is not None:
            raise error
        return real_step(self, now)

    monkeypatch.setattr(LocalController, "step", step)
    async with local_stack() as made:
        made.serve(model("a"))
        await made.serve_one("a")
        await auntil(lambda: len(made.log.events("reconcile_failed")) == 2)
