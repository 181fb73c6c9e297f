"""Status of a Model as a function of its view."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_objects
from corral_core.contracts.eviction import is_interrupted
from corral_core.contracts.model_metadata import ComputeBuffer
from corral_core.model.name_index import LostName
from corral_core.planning.snapshot import Decision
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import estimate_memory
from corral_operator.observe.inspector import parse_inspector
from corral_operator.observe.objects import PodObject, parse_model_object, parse_pod
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.report.load import LoadChoice
from corral_operator.report.status import changed_fields, model_status
from corral_operator.report.view import ModelView
from tests.core.weights.test_memory_estimate import SMOLLM2
from tests.operator import samples
from tests.operator.inspector_samples import inspector_in
from tests.operator.samples import METADATA, NOW

RUN, IDLE = Decision(1, "serving requests"), Decision(0, "idle")
UNSCHEDULABLE = PodFailure(
    "Unschedulable", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", phase="WaitingForCapacity"
)
CRASHED = PodFailure("CrashLoopBackOff", "not a GGUF", phase="Failed")


def view(
    decision: Decision | None = RUN, *pods: PodObject, status: JsonObject | None = None, **spec: object
) -> ModelView:
    item = parse_model_object(samples.model(spec=spec, status=status or {}))
    return ModelView(item=item, decision=decision, pods=pods, metadata=item.metadata)


def pod(*, ready: bool = True, deleted: bool = False, failure: PodFailure | None = None) -> PodObject:
    parsed = parse_pod(samples.pod(ready=ready))
    meta = dataclasses.replace(parsed.meta, deleted=deleted)
    return dataclasses.replace(parsed, meta=meta, failure=failure, scheduled=failure is not UNSCHEDULABLE)


@pytest.mark.parametrize("waiting", [True, False])
def test_the_gateways_learn_from_the_status_that_requests_are_ended(waiting: bool) -> None:
    overdue = Decision(0, "unloaded", interrupt=True, waiting_for_capacity=waiting)
    assert is_interrupted(model_status(view(overdue, pod(deleted=True)), NOW))
    assert not is_interrupted(model_status(view(IDLE, pod(deleted=True)), NOW))


@pytest.mark.parametrize(
    ("phase", "subject"),
    [
        ("Idle", view(IDLE)),
        ("WaitingForCapacity", view(Decision(0, "requests are pending", waiting_for_capacity=True))),
        ("Failed", view(Decision(0, "needs 9 GPUs", failure="needs 9 GPUs"))),
        ("Draining", view(Decision(0, "needs 9 GPUs", failure="needs 9 GPUs"), pod(deleted=True))),
        ("Loading", view(RUN)),
        ("Loading", view(RUN, pod(ready=False))),
        ("WaitingForCapacity", view(RUN, pod(ready=False, failure=UNSCHEDULABLE))),
        ("Failed", view(RUN, pod(ready=False, failure=CRASHED))),
        ("Ready", view(RUN, pod())),
        ("Ready", view(RUN, pod(), pod(ready=False, failure=CRASHED))),
        ("Loading", view(RUN, pod(ready=False, failure=CRASHED), pod(ready=False))),
        ("Draining", view(IDLE, pod(deleted=True))),
        ("Draining", view(Decision(1, "evicted", draining=True), pod())),
        ("Draining", view(IDLE, pod(), suspend=True)),
        ("Suspended", view(IDLE, suspend=True)),
        ("Failed", view(None, source="nonsense")),
        ("Failed", dataclasses.replace(view(IDLE), rejection="its name belongs to lab/older")),
    ],
)
def test_phase(phase: str, subject: ModelView) -> None:
    assert model_status(subject, NOW)["phase"] == phase


def condition(status: JsonObject, kind: str) -> JsonObject:
    return next(item for item in get_objects(status, "conditions") if item["type"] == kind)


def test_the_condition_names_what_the_inspector_could_not_report() -> None:
    known = dataclasses.replace(METADATA, left_out=("license",))
    inspected = condition(model_status(dataclasses.replace(view(IDLE), metadata=known), NOW), "Inspected")
    assert str(inspected["message"]).endswith("; too long for the report, and not in /api/show: license")


def test_an_invalid_model_lists_every_problem_and_is_stalled() -> None:
    status = model_status(view(None, source="nonsense", parallel=-3), NOW)
    accepted = condition(status, "Accepted")
    assert accepted["status"] == "False"
    assert "spec.source" in str(accepted["message"])
    assert "spec.parallel" in str(accepted["message"])
    told = {item["type"]: (item["status"], item["message"]) for item in conditions_of(status)}
    assert told["Ready"] == ("False", accepted["message"])
    assert told["Stalled"] == ("True", accepted["message"])
    assert len(told) == 3


def test_the_failure_of_a_crashed_runner_is_the_reason() -> None:
    ready = condition(model_status(view(RUN, pod(ready=False, failure=CRASHED)), NOW), "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "CrashLoopBackOff", "not a GGUF")


def test_an_unschedulable_pod_has_the_message_of_the_scheduler() -> None:
    scheduled = condition(model_status(view(RUN, pod(ready=False, failure=UNSCHEDULABLE)), NOW), "Scheduled")
    assert scheduled["status"] == "False"
    assert "Insufficient nvidia.com/gpu" in str(scheduled["message"])


def test_a_condition_that_keeps_its_status_keeps_its_transition_time() -> None:
    first = model_status(view(RUN, pod()), NOW)
    later = model_status(view(RUN, pod(), status=first), NOW + 100)
    assert changed_fields(first, later) == set()


def test_a_condition_that_changes_its_status_gets_a_new_transition_time() -> None:
    first = model_status(view(RUN, pod(ready=False)), NOW)
    later = model_status(view(RUN, pod(), status=first), NOW + 100)
    assert condition(later, "Loaded")["lastTransitionTime"] != condition(first, "Loaded")["lastTransitionTime"]
    assert condition(later, "Scheduled") == condition(first, "Scheduled")


def test_metadata_and_placement_of_the_last_runner_are_kept_at_zero_replicas() -> None:
    info = RunnerInfo(METADATA, parallel=4, context_length=2048)
    warm = model_status(dataclasses.replace(view(RUN, pod()), info=info), NOW)
    cold = model_status(view(IDLE, status=warm), NOW + 100)
    assert cold["model"] == METADATA.to_json()
    assert cold["placement"] == warm["placement"]


def test_a_loaded_runner_changes_no_number_of_the_estimate_that_it_was_started_with() -> None:
    buffers = (ComputeBuffer(4, "f16", 2048, 3_000_000),)
    inspected = dataclasses.replace(METADATA, dimensions=dataclasses.replace(SMOLLM2, compute_buffers=buffers))
    info = RunnerInfo(dataclasses.replace(METADATA, template="of the runner"), parallel=4, context_length=2048)
    subject = dataclasses.replace(view(RUN, pod()), metadata=inspected, info=info)
    found = get_object(model_status(subject, NOW), "model")
    assert found["template"] == "of the runner"
    assert found["shape"] == inspected.to_json()["shape"]


def test_replicas_count_the_pods_that_are_not_deleted() -> None:
    status = model_status(view(RUN, pod(), pod(ready=False), pod(deleted=True)), NOW)
    assert (status["replicas"], status["readyReplicas"]) == (2, 1)


def test_the_demand_of_the_gateways_is_not_compared() -> None:
    status = model_status(view(IDLE), NOW)
    assert changed_fields({**status, "demand": [{"gateway": "g1"}]}, status) == set()


def test_a_model_whose_pods_are_rejected_fails_until_one_exists() -> None:
    rejected = dataclasses.replace(view(RUN), rejected_pod=PodFailure("PodRejected", "no PriorityClass fast", "Failed"))
    status = model_status(rejected, NOW)
    assert status["phase"] == "Failed"
    assert "no PriorityClass fast" in [item["message"] for item in get_objects(status, "conditions")]
    assert model_status(dataclasses.replace(rejected, pods=[pod()]), NOW)["phase"] == "Ready"


def test_a_model_whose_deployment_is_rejected_fails_with_the_reason_even_without_a_request() -> None:
    failure = PodFailure("DeploymentRejected", "no field affinity.nope", "Failed")
    for decision in (RUN, IDLE):
        rejected = dataclasses.replace(view(decision), rejected_object=failure)
        status = model_status(rejected, NOW)
        told = {item["type"]: (item["status"], item["reason"], item["message"]) for item in conditions_of(status)}
        assert status["phase"] == "Failed"
        assert told["Scheduled"] == told["Ready"] == ("False", "DeploymentRejected", "no field affinity.nope")


def test_a_rejected_change_of_a_serving_model_is_reported_and_the_model_serves_on() -> None:
    failure = PodFailure("DeploymentRejected", "denied", "Failed")
    status = model_status(dataclasses.replace(view(RUN, pod()), rejected_object=failure), NOW)
    told = {item["type"]: (item["status"], item["message"]) for item in conditions_of(status)}
    assert status["phase"] == "Ready"
    assert (told["Ready"][0], told["Scheduled"]) == ("True", ("False", "denied"))


def conditions_of(status: Mapping[str, object]) -> Sequence[Mapping[str, object]]:
    return get_objects(status, "conditions")


def conflicting() -> ModelView:
    """Return the view of an idle Model one of whose names another Model has."""
    return dataclasses.replace(view(IDLE), lost_names=(LostName("big", "lab/older"),), names=("tiny",))


def uninspected(inspector: Mapping[str, object] | None = None) -> ModelView:
    """Return the view of a Model without metadata whose inspector has this status."""
    item = parse_model_object(samples.model(inspected=False))
    parsed = parse_inspector(inspector_in(inspector)) if inspector is not None else None
    return ModelView(item=item, decision=IDLE, inspector=parsed)


@pytest.mark.parametrize(("inspector", "reason"), [(None, "Pending"), ({"phase": "Pending"}, "Running")])
def test_a_model_without_metadata_is_pending(inspector: Mapping[str, object] | None, reason: str) -> None:
    status = model_status(uninspected(inspector), NOW)
    assert status["phase"] == "Pending"
    assert condition(status, "Inspected")["reason"] == reason
    assert condition(status, "Ready")["reason"] == reason


def test_unreadable_weights_fail_the_model() -> None:
    ended = {"terminated": {"exitCode": 1, "message": "there is no file /weights/a.gguf"}}
    status = model_status(uninspected({"containerStatuses": [{"name": "inspector", "state": ended}]}), NOW)
    assert status["phase"] == "Failed"
    assert "there is no file /weights/a.gguf" in str(condition(status, "Ready")["message"])


def test_a_missing_claim_fails_the_model() -> None:
    unschedulable = samples.unschedulable('persistentvolumeclaim "weights" not found')
    status = model_status(uninspected(unschedulable), NOW)
    assert (status["phase"], condition(status, "Ready")["reason"]) == ("Failed", "ClaimMissing")


def test_known_metadata_gives_the_estimate_and_the_expected_placement() -> None:
    estimate = estimate_memory(SMOLLM2, LoadConfig(4096, 4))
    status = model_status(dataclasses.replace(view(IDLE), load=LoadChoice(estimate)), NOW)
    assert "135M llama, Q4_1; a runner needs about 728 MiB" in str(condition(status, "Inspected")["message"])
    placement = get_object(status, "placement")
    expected = (4, 4096, estimate.engine)
    assert (placement["parallel"], placement["contextLength"], placement["sizeBytes"]) == expected


def test_metadata_of_a_runner_with_other_weights_is_not_used() -> None:
    other = dataclasses.replace(METADATA, source="file:///other.gguf")
    info = RunnerInfo(other, parallel=4, context_length=2048)
    status = model_status(dataclasses.replace(view(RUN, pod()), info=info), NOW)
    assert status["model"] == METADATA.to_json()
