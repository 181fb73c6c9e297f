"""Current plan: workers share one plan, and changes are gathered in the pause after it."""

from __future__ import annotations

import asyncio

import pytest

from corral_core.planning.snapshot import Policy
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.reconcile.metrics import PlanMetrics
from corral_operator.reconcile.planning import current_plan
from corral_operator.reconcile.planning.current_plan import CurrentPlan
from corral_operator.reconcile.work_queue import WorkQueue
from tests.operator.clock import ManualClock


class Plans:
    """A current plan without Models; ``made`` is the number of plans until now."""

    def __init__(self) -> None:
        clock = ManualClock()
        self.metrics = PlanMetrics()
        self.queue = WorkQueue()
        self.current = CurrentPlan(
            ClusterState(clock=clock), self.queue, policy=Policy(), metrics=self.metrics, clock=clock
        )

    @property
    def made(self) -> int:
        return sum(self.metrics.seconds.counts)

    async def change(self) -> None:
        self.current.mark_stale()
        await self.current.refresh()


async def test_a_plan_without_a_change_since_is_not_made_again() -> None:
    plans = Plans()
    await plans.current.refresh()
    await plans.current.refresh()
    assert plans.made == 1


async def test_the_first_worker_plans_at_once_and_the_others_share_the_next_plan() -> None:
    plans = Plans()
    await asyncio.gather(*(plans.change() for _ in range(10)))
    assert plans.made == 2


async def test_changes_in_the_pause_after_a_plan_are_planned_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_plan, "PAUSE_FACTOR", 1e9)
    plans = Plans()
    await plans.current.refresh()
    await asyncio.gather(*(plans.change() for _ in range(10)))
    assert plans.made == 2


async def test_a_worker_waits_for_a_plan_that_includes_its_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_plan, "PAUSE_FACTOR", 1e9)
    plans = Plans()
    first = asyncio.create_task(plans.change())
    await asyncio.sleep(0)
    late = asyncio.create_task(plans.change())
    await asyncio.gather(first, late)
    assert plans.made == 2
