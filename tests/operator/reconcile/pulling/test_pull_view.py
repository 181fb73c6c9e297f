"""Whether a pull is wanted now, and what the status says of it."""

from __future__ import annotations

import pytest

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.demand import DemandEntry
from corral_core.contracts.pull_status import PullStatus
from corral_core.planning.snapshot import Decision
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.reconcile.pulling.pull_view import pull_view, pull_wanted
from corral_operator.report.view import PullView
from tests.operator import pull_samples, samples
from tests.operator.clock import ManualClock
from tests.operator.inspector_samples import crashed
from tests.operator.samples import NOW

IDLE = Decision(0, "inactive")


def wanted(
    clock: ManualClock,
    spec: dict[str, object] | None = None,
    *,
    decision: Decision | None = IDLE,
    waiting: int | None = None,
) -> bool:
    state = ClusterState(clock=clock)
    entry = DemandEntry("g", waiting or 0, oldest=clock.now, renewed=clock.now)
    status = {} if waiting is None else {"demand": [entry.to_json()]}
    state.apply(Kind.MODELS, pull_samples.model(status=status, spec=spec))
    item = state.models.get("lab/tiny")
    assert item is not None
    return pull_wanted(state, item, decision, now=clock.now)


def test_a_source_is_pulled_when_the_model_is_created(clock: ManualClock) -> None:
    assert wanted(clock)


@pytest.mark.parametrize(("spec", "expected"), [({}, False), ({"minReplicas": 1}, True), ({"replicas": 1}, True)])
def test_without_prefetch_it_is_pulled_for_a_runner(
    clock: ManualClock, spec: dict[str, object], expected: bool
) -> None:
    assert wanted(clock, {"prefetch": False, **spec}) == expected


def test_without_prefetch_it_is_pulled_for_a_request(clock: ManualClock) -> None:
    assert wanted(clock, {"prefetch": False}, waiting=1)


def test_without_prefetch_it_is_pulled_for_a_client_that_waits_for_the_pull(clock: ManualClock) -> None:
    assert wanted(clock, {"prefetch": False}, waiting=0)


def test_nothing_is_pulled_for_a_model_that_cannot_run(clock: ManualClock) -> None:
    assert not wanted(clock, decision=Decision(0, "too large", failure="no node has 900 GiB"))
    assert not wanted(clock, decision=None)
    assert not wanted(clock, {"suspend": True}, waiting=1)


def test_a_model_with_local_sources_has_no_pull() -> None:
    state = ClusterState()
    state.apply(Kind.MODELS, samples.model())
    item = state.models.get("lab/tiny")
    assert item is not None
    assert pull_view(state, item, wanted=True, now=NOW) is None


def test_the_view_has_the_image_that_runners_mount() -> None:
    state = ClusterState()
    state.apply(Kind.MODELS, pull_samples.image_model())
    state.replace(Kind.NODES, [{**samples.node("a"), "status": {"nodeInfo": pull_samples.NODE_INFO}}], "1")
    state.replace(Kind.OTHER_PODS, [], "1")
    item = state.models.get("lab/tiny")
    assert item is not None
    view = pull_view(state, item, wanted=True, now=0.0)
    assert view is not None
    assert (view.mounted, view.pulled) == (state.mounted_image("lab/tiny"), True)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"suspend": True}, "spec.suspend is true"),
        ({}, "no node can run the Model"),
        ({"prefetch": False}, "at the first request"),
    ],
)
def test_a_pull_that_does_not_begin_says_why(spec: dict[str, object], why: str) -> None:
    state = ClusterState()
    state.apply(Kind.MODELS, pull_samples.model(spec=spec))
    item = state.models.get("lab/tiny")
    assert item is not None
    view = pull_view(state, item, wanted=False, now=NOW)
    assert view is not None
    assert why in view.postponed


def view_of(*pods: JsonObject, spec: dict[str, object] | None = None) -> PullView:
    """Return the pull of a Model whose runner pods pull."""
    state = ClusterState()
    state.apply(Kind.MODELS, pull_samples.model(spec={**pull_samples.EPHEMERAL, **(spec or {})}))
    for pod in pods:
        state.apply(Kind.PODS, pod)
    state.set_pull_status("uid-tiny-1", PullStatus(7))
    item = state.models.get("lab/tiny")
    assert item is not None
    view = pull_view(state, item, wanted=True, now=NOW)
    assert view is not None
    assert view.in_pods
    return view


def test_the_pull_of_a_model_without_runners_begins_with_the_next_one() -> None:
    view = view_of()
    assert (view.pulled, view.wanted, view.puller) == (False, False, None)
    assert "when it starts" in view.postponed
    assert "spec.suspend" in view_of(spec={"suspend": True}).postponed


def test_the_progress_is_that_of_the_newest_pod_that_pulls() -> None:
    pulled = pull_samples.runner({"terminated": {"exitCode": 0}}, ready=True)
    view = view_of(pulled, pull_samples.runner({"running": {}}, name="tiny-1"))
    assert view.puller is not None
    assert (view.puller.pod.name, view.puller.running, view.pulled) == ("tiny-1", True, False)
    assert view.status == PullStatus(7)


def test_the_weights_are_pulled_when_every_runner_pod_has_them() -> None:
    assert view_of(pull_samples.runner({"terminated": {"exitCode": 0}}, ready=True)).pulled


def test_a_pod_of_an_earlier_kind_of_cache_has_pulled_nothing() -> None:
    assert not view_of(samples.pod()).pulled


def test_a_poll_that_fails_is_why_a_pulled_source_is_not_resolved_again() -> None:
    state = ClusterState()
    state.apply(Kind.MODELS, pull_samples.model(source=pull_samples.PULLED))
    state.apply(Kind.PODS, {**pull_samples.inspector(), "status": crashed("the registry does not answer")})
    item = state.models.get("lab/tiny")
    assert item is not None
    view = pull_view(state, item, wanted=True, now=NOW)
    assert view is not None
    assert view.not_updated is not None
    assert "cannot be resolved again" in view.not_updated.message
    assert "the registry does not answer" in view.not_updated.message


@pytest.mark.parametrize(("snapshot", "replaced"), [(pull_samples.SNAPSHOT, False), ("0" * 32, True)])
def test_runners_with_other_snapshots_are_replaced(snapshot: str, replaced: bool) -> None:
    state = ClusterState()
    state.apply(Kind.MODELS, pull_samples.model(source=pull_samples.PULLED))
    state.apply(Kind.CLAIMS, pull_samples.claim())
    annotations = {"corral.dev/snapshots": snapshot}
    counts = {"observedGeneration": 1, "updatedReplicas": 1, "replicas": 1, "availableReplicas": 1}
    deployment = samples.with_metadata(samples.deployment(replicas=1), annotations=annotations)
    state.apply(Kind.DEPLOYMENTS, {**deployment, "status": counts})
    item = state.models.get("lab/tiny")
    assert item is not None
    view = pull_view(state, item, wanted=True, now=NOW)
    assert view is not None
    assert view.replaced == replaced
