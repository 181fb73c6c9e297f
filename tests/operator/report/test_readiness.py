"""Conditions Loaded, Ready, Reconciling and Stalled of a Model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.json_fields import JsonObject, get_objects, get_str
from corral_core.planning.snapshot import Decision
from corral_operator.observe.objects import parse_model_object
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.observe.pulling.puller import parse_puller
from corral_operator.report.status import model_status
from corral_operator.report.view import ModelView, PullView
from tests.operator import pull_samples
from tests.operator.report.test_status import CRASHED, IDLE, RUN, UNSCHEDULABLE, conflicting, pod, uninspected, view
from tests.operator.samples import NOW

WAITS = Decision(0, "requests are pending: draining lab/other to free capacity", waiting_for_capacity=True)
UNSUITABLE = Decision(0, "needs 9 GPUs", failure="needs 9 GPUs")
EVICTED = Decision(0, "unloaded: frees capacity for lab/other", evicted_for="lab/other", interrupt=True)
REJECTED = PodFailure("DeploymentRejected", "no field affinity.nope", "Failed")


def remote(pull: PullView, decision: Decision = IDLE) -> ModelView:
    item = parse_model_object(pull_samples.model())
    return ModelView(item, decision, metadata=pull_samples.METADATA, pull=pull)


RUNNING = parse_puller(pull_samples.puller({"running": {}}))
FULL = replace(RUNNING, failure=PodFailure("StoreFull", "the claim is full", "Failed"))
PULLING = remote(PullView(pull_samples.RESOLVED, puller=RUNNING))
POSTPONED = remote(PullView(pull_samples.RESOLVED, wanted=False))


def told(subject: ModelView) -> dict[str, tuple[str, str, str]]:
    """Return status, reason and message of each condition by type."""
    return by_type(model_status(subject, NOW))


def by_type(status: JsonObject) -> dict[str, tuple[str, str, str]]:
    return {
        get_str(one, "type"): (get_str(one, "status"), get_str(one, "reason"), get_str(one, "message"))
        for one in get_objects(status, "conditions")
    }


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (view(IDLE), "Idle"),
        (view(RUN), "Loading"),
        (view(RUN, pod(ready=False)), "Loading"),
        (view(RUN, pod()), "Ready"),
        (view(IDLE, pod(deleted=True)), "Draining"),
        (view(EVICTED, pod(deleted=True)), "Draining"),
        (view(WAITS), "WaitingForCapacity"),
        (remote(PullView(pull_samples.PULLED)), "Idle"),
        (POSTPONED, "PullOnDemand"),
        (conflicting(), "Idle"),
    ],
)
def test_a_model_that_serves_when_asked_is_ready(subject: ModelView, reason: str) -> None:
    conditions = told(subject)
    assert conditions["Ready"][:2] == ("True", reason)
    assert not {"Reconciling", "Stalled"} & conditions.keys()


@pytest.mark.parametrize(
    ("subject", "reason", "message"),
    [
        (uninspected(), "Pending", "the header of the weights must be read before the first start"),
        (uninspected({"phase": "Pending"}), "Running", "an inspector pod reads the header of the weights"),
        (PULLING, "Pulling", "pulling 93.8 MiB"),
        (view(RUN, pod(ready=False, failure=UNSCHEDULABLE)), "Unschedulable", "0/2 nodes are available"),
    ],
)
def test_a_model_that_gets_there_by_itself_is_reconciling_and_says_what_it_waits_for(
    subject: ModelView, reason: str, message: str
) -> None:
    conditions = told(subject)
    assert conditions["Ready"][:2] == ("False", reason)
    assert conditions["Ready"][2].startswith(message)
    assert conditions["Reconciling"] == ("True", *conditions["Ready"][1:])
    assert "Stalled" not in conditions


@pytest.mark.parametrize(
    ("subject", "reason", "message"),
    [
        (view(None, source="nonsense"), "Invalid", "spec.source"),
        (replace(view(IDLE), rejection="its name belongs to lab/older"), "NameConflict", "lab/older"),
        (view(UNSUITABLE), "NoSuitableNode", "needs 9 GPUs"),
        (view(RUN, pod(ready=False, failure=CRASHED)), "CrashLoopBackOff", "not a GGUF"),
        (replace(view(IDLE), rejected_object=REJECTED), "DeploymentRejected", "affinity.nope"),
        (replace(view(RUN), rejected_pod=replace(REJECTED, reason="PodRejected")), "PodRejected", "affinity.nope"),
        (
            remote(
                PullView(
                    pull_samples.RESOLVED, puller=replace(RUNNING, failure=PodFailure("StoreFull", "full", "Failed"))
                )
            ),
            "StoreFull",
            "full",
        ),
    ],
)
def test_a_model_that_needs_a_change_is_stalled_and_says_which(subject: ModelView, reason: str, message: str) -> None:
    conditions = told(subject)
    assert conditions["Ready"][:2] == ("False", reason)
    assert message in conditions["Ready"][2]
    assert conditions["Stalled"] == ("True", *conditions["Ready"][1:])
    assert "Reconciling" not in conditions


@pytest.mark.parametrize(
    ("subject", "reason"),
    [(view(IDLE, suspend=True), "Suspended"), (view(IDLE, replicas=0), "ScaledToZero")],
)
def test_a_model_that_its_spec_turns_off_is_not_ready_and_nothing_is_left_to_do(
    subject: ModelView, reason: str
) -> None:
    conditions = told(subject)
    assert conditions["Ready"][:2] == ("False", reason)
    assert not {"Reconciling", "Stalled"} & conditions.keys()


def test_a_model_is_reconciling_until_the_runners_that_its_spec_asks_for_are_ready() -> None:
    kept = Decision(1, "kept: spec.minReplicas is 1")
    loading = told(view(kept, pod(ready=False), minReplicas=1))
    assert loading["Ready"][0] == "True"
    assert loading["Reconciling"] == ("True", "Loading", "0 of 1 runners that the spec asks for are ready")
    assert "Reconciling" not in told(view(kept, pod(), minReplicas=1))


def test_a_model_whose_runners_are_replaced_is_ready_and_reconciling() -> None:
    conditions = told(view(RUN, pod(), pod(ready=False)))
    assert conditions["Ready"][0] == "True"
    assert conditions["Reconciling"][1] == "RollingOut"


def test_a_model_whose_new_version_is_pulled_is_ready_and_reconciling() -> None:
    update = replace(pull_samples.RESOLVED, pins={pull_samples.SOURCE: "sha256:new"})
    conditions = told(remote(PullView(pull_samples.PULLED, update=update, puller=RUNNING)))
    assert conditions["Ready"][:2] == ("True", "Idle")
    assert conditions["Reconciling"][:2] == ("True", "Updating")


def test_a_rejected_change_of_a_serving_model_stalls_it_and_leaves_it_ready() -> None:
    conditions = told(replace(view(RUN, pod()), rejected_object=REJECTED))
    assert conditions["Ready"][0] == "True"
    assert conditions["Stalled"] == ("True", "DeploymentRejected", "no field affinity.nope")


@pytest.mark.parametrize(
    ("subject", "status", "reason"),
    [
        (view(IDLE), "False", "Idle"),
        (view(RUN), "False", "Loading"),
        (view(RUN, pod()), "True", "Loaded"),
        (view(Decision(1, "evicted", draining=True), pod()), "True", "Draining"),
        (view(IDLE, pod(deleted=True)), "False", "Draining"),
        (view(WAITS), "False", "WaitingForCapacity"),
        (view(RUN, pod(ready=False, failure=CRASHED)), "False", "CrashLoopBackOff"),
        (view(EVICTED, pod(deleted=True)), "False", "EvictionTimeout"),
        (PULLING, "False", "Pulling"),
    ],
)
def test_loaded_tells_whether_a_runner_is_ready(subject: ModelView, status: str, reason: str) -> None:
    assert told(subject)["Loaded"][:2] == (status, reason)


def test_an_unloaded_model_says_why_its_last_load_failed_until_one_succeeds() -> None:
    failed = model_status(view(RUN, pod(ready=False, failure=CRASHED)), NOW)
    draining = model_status(view(IDLE, pod(deleted=True), status=failed), NOW)
    idle = view(IDLE, status=draining)
    conditions = told(idle)
    assert conditions["Ready"][:2] == ("True", "Idle"), "the next request tries again"
    message = "the last load failed, and the next request tries again: not a GGUF"
    assert conditions["Loaded"] == ("False", "LoadFailed", message)
    assert model_status(view(IDLE, status=model_status(idle, NOW)), NOW) == model_status(idle, NOW)
    loaded = model_status(view(RUN, pod(), status=model_status(idle, NOW)), NOW)
    assert told(view(IDLE, status=loaded))["Loaded"][1] == "Idle"


def test_a_changed_spec_clears_the_failure_of_the_last_load() -> None:
    failed = model_status(view(RUN, pod(ready=False, failure=CRASHED)), NOW)
    changed = view(IDLE, status=failed)
    meta = replace(changed.item.meta, generation=2)
    assert told(replace(changed, item=replace(changed.item, meta=meta)))["Loaded"][1] == "Idle"
