"""Puller pods: what they pulled, and why they do not run."""

from __future__ import annotations

import pytest

from corral_core.contracts.pull_status import PullFailure, encode_failure
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.pulling.puller import parse_puller
from tests.operator import pull_samples as samples


def test_a_finished_puller_reports_its_snapshots() -> None:
    puller = parse_puller(samples.finished())
    assert (puller.snapshots, puller.failure, puller.active) == ((samples.SNAPSHOT,), None, False)


@pytest.mark.parametrize("message", ["", "corral-snapshots:zzz"])
def test_a_finished_puller_without_a_result_has_failed(message: str) -> None:
    failure = parse_puller(samples.finished(message=message)).failure
    assert failure is not None
    assert (failure.reason, failure.phase) == ("PullFailed", "Failed")


@pytest.mark.parametrize(
    ("reason", "phase"),
    [(PullFailure.RETRYING, "Loading"), (PullFailure.FAILED, "Failed"), (PullFailure.STORE_FULL, "Failed")],
)
def test_a_failure_fails_the_model_unless_it_is_tried_again(reason: PullFailure, phase: str) -> None:
    ended = samples.failed(encode_failure(reason, "no room"))
    for raw in (
        samples.puller(ended),
        samples.puller({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}, last=ended),
    ):
        failure = parse_puller(raw).failure
        assert failure is not None
        assert (failure.reason, failure.message, failure.phase) == (reason, "no room", phase)


def test_a_puller_that_runs_again_has_no_failure() -> None:
    puller = parse_puller(samples.puller({"running": {}}, last=samples.failed("PullFailed: gone")))
    assert (puller.failure, puller.running, puller.active) == (None, True, True)


def test_an_image_that_cannot_be_pulled_is_reported() -> None:
    failure = parse_puller(samples.puller({"waiting": {"reason": "ImagePullBackOff", "message": "no image"}})).failure
    assert failure is not None
    assert (failure.reason, failure.phase) == ("ImagePullBackOff", "Failed")


def test_pullers_are_neither_runners_nor_inspectors() -> None:
    state = ClusterState()
    state.apply(Kind.PODS, samples.puller())
    assert [len(store.all()) for store in (state.pods, state.inspectors, state.pullers)] == [0, 0, 1]
    state.replace(Kind.PODS, [], "100")
    assert not state.pullers.all()
