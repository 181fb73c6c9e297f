"""Times of pods on the operator's clock, whatever the clocks of nodes and API server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.timestamps import format_time
from corral_core.planning.plan_memory import PlanMemory
from corral_core.planning.planner import plan
from corral_core.planning.snapshot import Policy
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import parse_pod
from corral_operator.observe.pod_times import PodTimes
from corral_operator.reconcile.planning.planner_input import planner_snapshot
from tests.operator import samples
from tests.operator.clock import ManualClock
from tests.operator.samples import NOW

POD = parse_pod(samples.pod())
UNREADY = replace(POD, ready=False)


def test_a_pod_is_ready_since_it_was_seen_to_become_ready(clock: ManualClock) -> None:
    times = PodTimes(clock)
    times.update(None, UNREADY)
    assert (times.of(UNREADY).seen_at, times.of(UNREADY).ready_since) == (NOW, None)
    clock.now += 40
    times.update(UNREADY, POD)
    clock.now += 5
    times.update(POD, replace(POD, ip="10.9.9.9"))
    assert (times.of(POD).seen_at, times.of(POD).ready_since) == (NOW, NOW + 40)
    times.update(POD, UNREADY)
    assert times.of(UNREADY).ready_since is None


def test_the_times_of_a_pod_end_with_it(clock: ManualClock) -> None:
    times, other = PodTimes(clock), replace(POD, meta=replace(POD.meta, uid="another"))
    times.update(None, POD)
    clock.now += 60
    times.update(POD, other)
    assert times.of(other).seen_at == NOW + 60
    clock.now += 60
    times.update(other, None)
    times.update(None, POD)
    assert times.of(POD).seen_at == NOW + 120


@pytest.mark.parametrize("error", [-300.0, 0.0, 300.0])
def test_the_clock_of_a_node_does_not_change_the_plan(state: ClusterState, clock: ManualClock, error: float) -> None:
    """A loaded runner without requests stays for the minimum residency, and not longer."""
    state.apply(Kind.MODELS, samples.model(inspected=True))
    state.apply(Kind.DEPLOYMENTS, samples.deployment(replicas=1))
    reported = format_time(NOW + error)
    ready = [{"type": "Ready", "status": "True", "lastTransitionTime": reported}]
    state.apply(Kind.PODS, samples.pod(status={"startTime": reported, "conditions": ready}))
    state.set_runner_status("uid-tiny-0", samples.runner_status(expires_at=NOW))
    policy = Policy(min_residency=10.0)

    def replicas(now: float) -> int:
        clock.now = now
        snapshot = planner_snapshot(
            state, policy, now, memory=PlanMemory(), drained_before=lambda key: False, errors={}
        )
        return plan(snapshot, now).decisions["lab/tiny"].replicas

    assert [replicas(NOW + seconds) for seconds in (0, 9, 11)] == [1, 1, 0]
