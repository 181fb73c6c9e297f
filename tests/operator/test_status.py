"""A Model's status as a function of what is observed and decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from corral_core.estimate import estimate
from corral_core.jsonfields import Json, objects
from corral_core.load import Load
from corral_core.snapshot import Decision
from corral_operator.config import RunnerDefaults
from corral_operator.inspectors import inspector_pod, parse_inspector
from corral_operator.objects import PodObject, Trouble, parse_model_object, parse_pod
from corral_operator.observe import RunnerInfo
from corral_operator.status import View, difference, status_of
from tests.core.test_estimate import SMOLLM2
from tests.operator import samples

NOW = 1_800_000_000.0
RUN, IDLE = Decision(1, "serving requests"), Decision(0, "idle: nobody asks for it")
FACTS = samples.FACTS


def view(decision: Decision | None = RUN, *pods: PodObject, status: Json | None = None, **spec: object) -> View:
    raw = samples.model(spec=spec, status=status or {})
    item = parse_model_object(raw)
    return View(item=item, decision=decision, pods=pods, facts=item.facts)


def pod(*, ready: bool = True, deleted: bool = False, trouble: Trouble | None = None) -> PodObject:
    parsed = parse_pod(samples.pod(ready=ready))
    meta = dataclasses.replace(parsed.meta, deleted=deleted)
    return dataclasses.replace(parsed, meta=meta, trouble=trouble, scheduled=trouble is not UNSCHEDULABLE)


UNSCHEDULABLE = Trouble(
    "Unschedulable", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.", phase="WaitingForCapacity"
)
CRASHING = Trouble("CrashLoopBackOff", "not a GGUF", phase="Failed")


@pytest.mark.parametrize(
    ("phase", "subject"),
    [
        ("Idle", view(IDLE)),
        ("WaitingForCapacity", view(Decision(0, "requests wait", waiting_for_capacity=True))),
        ("Failed", view(Decision(0, "needs 9 GPUs", failure="needs 9 GPUs"))),
        ("Draining", view(Decision(0, "needs 9 GPUs", failure="needs 9 GPUs"), pod(deleted=True))),
        ("Loading", view(RUN)),
        ("Loading", view(RUN, pod(ready=False))),
        ("WaitingForCapacity", view(RUN, pod(ready=False, trouble=UNSCHEDULABLE))),
        ("Failed", view(RUN, pod(ready=False, trouble=CRASHING))),
        ("Ready", view(RUN, pod())),
        ("Ready", view(RUN, pod(), pod(ready=False, trouble=CRASHING))),
        ("Loading", view(RUN, pod(ready=False, trouble=CRASHING), pod(ready=False))),
        ("Draining", view(IDLE, pod(deleted=True))),
        ("Draining", view(Decision(1, "makes room", draining=True), pod())),
        ("Draining", view(IDLE, pod(), suspend=True)),
        ("Suspended", view(IDLE, suspend=True)),
        ("Failed", view(None, source="nonsense")),
        ("Failed", dataclasses.replace(view(IDLE), refused="its name belongs to lab/older")),
    ],
)
def test_phase(phase: str, subject: View) -> None:
    assert status_of(subject, NOW)["phase"] == phase


def condition(status: Json, kind: str) -> Json:
    return next(item for item in objects(status, "conditions") if item["type"] == kind)


def test_an_invalid_model_says_every_problem_and_nothing_about_running() -> None:
    status = status_of(view(None, source="nonsense", parallel=-3), NOW)
    accepted = condition(status, "Accepted")
    assert accepted["status"] == "False"
    assert "spec.source" in str(accepted["message"])
    assert "spec.parallel" in str(accepted["message"])
    assert len(objects(status, "conditions")) == 1


def test_a_crashing_runners_last_words_are_the_reason() -> None:
    ready = condition(status_of(view(RUN, pod(ready=False, trouble=CRASHING)), NOW), "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "CrashLoopBackOff", "not a GGUF")


def test_a_pod_without_a_node_says_what_it_waits_for() -> None:
    scheduled = condition(status_of(view(RUN, pod(ready=False, trouble=UNSCHEDULABLE)), NOW), "Scheduled")
    assert scheduled["status"] == "False"
    assert "Insufficient nvidia.com/gpu" in str(scheduled["message"])


def test_a_condition_that_keeps_its_status_keeps_its_time() -> None:
    first = status_of(view(RUN, pod()), NOW)
    later = status_of(view(RUN, pod(), status=first), NOW + 100)
    assert difference(first, later) == set()


def test_a_condition_that_changes_gets_the_time_of_now() -> None:
    first = status_of(view(RUN, pod(ready=False)), NOW)
    later = status_of(view(RUN, pod(), status=first), NOW + 100)
    assert condition(later, "Ready")["lastTransitionTime"] != condition(first, "Ready")["lastTransitionTime"]
    assert condition(later, "Scheduled") == condition(first, "Scheduled")


def test_what_a_runner_told_is_kept_while_the_model_is_cold() -> None:
    warm = dataclasses.replace(view(RUN, pod()), info=RunnerInfo(FACTS, parallel=4, context_length=2048))
    told = status_of(warm, NOW)
    cold = status_of(view(IDLE, status=told), NOW + 100)
    assert cold["model"] == FACTS.to_json()
    assert cold["placement"] == told["placement"]


def test_replicas_count_the_pods_that_stay() -> None:
    status = status_of(view(RUN, pod(), pod(ready=False), pod(deleted=True)), NOW)
    assert (status["replicas"], status["readyReplicas"]) == (2, 1)


def test_the_gateways_demand_is_not_ours_to_differ_in() -> None:
    status = status_of(view(IDLE), NOW)
    assert difference({**status, "demand": [{"gateway": "g1"}]}, status) == set()


def test_a_model_whose_pods_are_refused_says_so_until_there_is_one() -> None:
    refused = dataclasses.replace(view(RUN), refusal=Trouble("PodRefused", "no PriorityClass fast", "Failed"))
    status = status_of(refused, NOW)
    assert status["phase"] == "Failed"
    assert "no PriorityClass fast" in [condition["message"] for condition in objects(status, "conditions")]
    assert status_of(dataclasses.replace(refused, pods=[pod()]), NOW)["phase"] == "Ready"


def _unread(status: Mapping[str, object] | None = None) -> View:
    item = parse_model_object(samples.model(known=False))
    assert item.model is not None
    pod = {**inspector_pod(item.model, defaults=RunnerDefaults()), "status": status or {}}
    return View(item=item, decision=IDLE, inspector=parse_inspector(pod) if status is not None else None)


def test_a_model_whose_weights_are_not_known_is_pending_and_says_what_it_waits_for() -> None:
    for subject, reason in ((_unread(), "Waiting"), (_unread({"phase": "Pending"}), "Reading")):
        status = status_of(subject, NOW)
        assert status["phase"] == "Pending"
        assert condition(status, "Inspected")["reason"] == reason
        assert condition(status, "Ready")["reason"] == reason


def test_weights_that_cannot_be_read_fail_the_model_with_the_reason() -> None:
    ended = {"terminated": {"exitCode": 1, "message": "there is no file /weights/a.gguf"}}
    status = status_of(_unread({"containerStatuses": [{"name": "inspector", "state": ended}]}), NOW)
    assert status["phase"] == "Failed"
    assert "there is no file /weights/a.gguf" in str(condition(status, "Ready")["message"])


def test_a_claim_that_is_missing_fails_the_model() -> None:
    message = 'persistentvolumeclaim "weights" not found'
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    status = status_of(_unread({"conditions": [unscheduled]}), NOW)
    assert (status["phase"], condition(status, "Ready")["reason"]) == ("Failed", "ClaimMissing")


def test_known_weights_say_what_a_runner_takes_and_what_it_will_get() -> None:
    made = estimate(SMOLLM2, Load(4096, 4))
    status = status_of(dataclasses.replace(view(IDLE), estimate=made), NOW)
    assert "135M llama, Q4_1; a runner takes about 596 MiB" in str(condition(status, "Inspected")["message"])
    placement = status["placement"]
    assert isinstance(placement, dict)
    assert (placement["parallel"], placement["contextLength"], placement["sizeBytes"]) == (4, 4096, made.engine)


def test_facts_of_a_runner_that_still_has_other_weights_are_not_the_models() -> None:
    other = RunnerInfo(dataclasses.replace(samples.FACTS, source="file:///other.gguf"), parallel=4, context_length=2048)
    status = status_of(dataclasses.replace(view(RUN, pod()), info=other), NOW)
    assert status["model"] == FACTS.to_json()
