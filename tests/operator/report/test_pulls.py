"""Pull in the status of a Model: phase, condition, progress."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.json_fields import JsonObject, get_objects, get_str
from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.planning.snapshot import Decision
from corral_operator.observe.objects import parse_model_object, parse_pod
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.observe.pulling.image_volumes import MountedImage
from corral_operator.observe.pulling.puller import Puller, parse_puller
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.reconcile.pulling.restarts import unresolved
from corral_operator.report.status import model_status
from corral_operator.report.view import ModelView, PullView
from tests.operator import pull_samples, samples
from tests.operator.samples import NOW

RUNNING = parse_puller(pull_samples.puller({"running": {}}))
PROGRESS = PullStatus(43_000_000, 100_000_000, 19_000_000.0, "pulling")
WAITING = Decision(0, "the weights are not pulled yet")
LOADING = Decision(1, "requests are pending: loading")


def status(
    pull: PullView, *, decision: Decision = WAITING, old: JsonObject | None = None, **view: object
) -> JsonObject:
    item = parse_model_object(pull_samples.model(status=old))
    made = ModelView(item=item, decision=decision, metadata=pull_samples.METADATA, pull=pull)
    return model_status(replace(made, **view), NOW)  # type: ignore[arg-type]  # fields of the view


def condition(found: JsonObject, kind: str) -> tuple[str, str, str]:
    (one,) = [item for item in get_objects(found, "conditions") if item["type"] == kind]
    return get_str(one, "status"), get_str(one, "reason"), get_str(one, "message")


def test_the_status_has_part_rate_and_time_left_while_a_puller_runs() -> None:
    found = status(PullView(pull_samples.RESOLVED, puller=RUNNING, status=PROGRESS))
    assert found["phase"] == "Pulling"
    assert found["pull"] == {
        "completed": "43%",
        "completedBytes": 43_000_000,
        "totalBytes": 100_000_000,
        "rate": 19_000_000,
        "secondsLeft": 3,
    }
    message = "pulling: 43 % of 95.4 MiB, 18.1 MiB/s, 3s left"
    assert condition(found, "Pulled") == ("False", "Pulling", message)
    assert condition(found, "Ready") == ("False", "Pulling", message)


def test_a_source_that_does_not_say_its_size_has_no_percentage() -> None:
    found = status(PullView(pull_samples.RESOLVED, puller=RUNNING, status=PullStatus(2048, None, 1024.0)))
    pull = found["pull"]
    assert isinstance(pull, dict)
    assert pull["completed"] == "2 KiB"
    assert "totalBytes" not in pull
    assert condition(found, "Pulled")[2] == "pulling: 2 KiB, 1 KiB/s"


def test_what_is_pulled_is_recorded_with_its_claim() -> None:
    found = status(PullView(pull_samples.PULLED), decision=Decision(0, "inactive: no pending requests"))
    assert (found["phase"], found["source"]) == ("Idle", pull_samples.PULLED.to_json())
    assert "pull" not in found
    assert condition(found, "Pulled")[:2] == ("True", "Pulled")
    assert "model-tiny" in condition(found, "Pulled")[2]


def test_an_image_that_is_mounted_is_not_pulled_before_the_start() -> None:
    image = MountedImage("registry.example/team/model@sha256:0f", "models/m.gguf")
    found = status(PullView(pull_samples.IMAGE, mounted=image), decision=Decision(0, "inactive: no pending requests"))
    assert (found["phase"], found["source"]) == ("Idle", pull_samples.IMAGE.to_json())
    assert condition(found, "Pulled")[:2] == ("True", "ImageVolume")
    assert image.reference in condition(found, "Pulled")[2]


def test_the_weights_of_a_model_without_prefetch_are_pulled_later() -> None:
    found = status(PullView(pull_samples.RESOLVED, wanted=False))
    assert (found["phase"], condition(found, "Pulled")[1]) == ("Idle", "NotStarted")


@pytest.mark.parametrize(
    ("failure", "phase"),
    [
        (PodFailure("StoreFull", "2 GiB are needed, 1 GiB is free", "Failed"), "Failed"),
        (PodFailure("Retrying", "the registry does not answer", "Loading"), "Pulling"),
    ],
)
def test_a_failure_is_shown_with_its_reason(failure: PodFailure, phase: str) -> None:
    found = status(PullView(pull_samples.RESOLVED, puller=replace(RUNNING, running=False, failure=failure)))
    assert found["phase"] == phase
    assert condition(found, "Pulled") == ("False", failure.reason, failure.message)
    assert condition(found, "Ready") == ("False", failure.reason, failure.message)


def test_a_claim_without_a_volume_says_what_to_set() -> None:
    text = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims"
    puller = replace(RUNNING, running=False, failure=PodFailure("Unschedulable", text, "WaitingForCapacity"))
    found = status(PullView(pull_samples.RESOLVED, puller=puller))
    assert condition(found, "Pulled")[1] == "ClaimPending"
    assert "spec.cache.storageClassName" in condition(found, "Pulled")[2]


def test_a_model_that_fits_no_node_fails_before_it_is_pulled() -> None:
    decision = Decision(0, "it needs 9 GiB", failure="it needs 9 GiB and the largest node has 8 GiB")
    found = status(PullView(pull_samples.RESOLVED, wanted=False), decision=decision)
    assert found["phase"] == "Failed"
    assert "9 GiB" in condition(found, "Ready")[2] + condition(found, "Scheduled")[2]


def test_a_runner_of_the_earlier_source_stays_ready_while_the_edited_one_is_pulled() -> None:
    view = PullView(pull_samples.RESOLVED, puller=RUNNING, status=PROGRESS)
    found = status(view, decision=Decision(1, "serving requests"), pods=[parse_pod(samples.pod())])
    assert found["phase"] == "Ready"
    assert condition(found, "Ready")[0] == "True"
    assert condition(found, "Pulled")[1] == "Pulling"


def test_pins_are_kept_while_an_edited_source_is_resolved() -> None:
    found = status(PullView(None), old={"source": pull_samples.PULLED.to_json()})
    assert found["source"] == pull_samples.PULLED.to_json()
    assert condition(found, "Pulled")[1] == "Resolving"


def in_pods(pod: JsonObject | None, *, decision: Decision = LOADING, progress: PullStatus | None = None) -> JsonObject:
    """Return the status of a Model whose only runner pod, None if it has none, pulls the weights itself."""
    pods = [parse_pod(pod)] if pod is not None else []
    pulling = [each for each in pods if each.pulling]
    puller = Puller(pulling[0], "", failure=pulling[0].failure, running="running" in str(pod)) if pulling else None
    view = PullView(
        pull_samples.RESOLVED,
        wanted=puller is not None,
        postponed="later",
        puller=puller,
        status=progress,
        in_pods=True,
        pods_pulled=bool(pods) and not pulling,
    )
    return status(view, decision=decision, pods=pods)


def test_a_model_whose_pods_pull_is_idle_without_them() -> None:
    found = in_pods(None, decision=Decision(0, "inactive: no pending requests"))
    assert (found["phase"], condition(found, "Pulled")[:2]) == ("Idle", ("False", "NotStarted"))
    assert condition(found, "Ready")[:2] == ("True", "Idle")


def test_a_model_whose_pods_pull_waits_for_capacity_like_any_other() -> None:
    found = in_pods(None, decision=Decision(0, "the node is full", waiting_for_capacity=True))
    assert found["phase"] == "WaitingForCapacity"


def test_a_pod_that_pulls_shows_the_progress() -> None:
    found = in_pods(pull_samples.runner({"running": {}}), progress=PROGRESS)
    assert found["phase"] == "Pulling"
    assert get_str(found, "pull", "completed") == "43%"
    assert condition(found, "Ready") == ("True", "Pulling", condition(found, "Pulled")[2])
    assert "43 %" in condition(found, "Ready")[2]


def test_a_pod_that_has_pulled_loads() -> None:
    found = in_pods(pull_samples.runner({"terminated": {"exitCode": 0}}))
    assert (found["phase"], condition(found, "Pulled")[:2]) == ("Loading", ("True", "Pulled"))
    assert "runner pod" in condition(found, "Pulled")[2]
    assert "pull" not in found


@pytest.mark.parametrize(("message", "phase"), [("PullFailed: gone", "Failed"), ("Retrying: no answer", "Pulling")])
def test_a_failure_of_a_pull_in_the_pod_is_shown_with_its_reason(message: str, phase: str) -> None:
    ended = pull_samples.failed(message)
    found = in_pods(pull_samples.runner({"waiting": {"reason": "CrashLoopBackOff"}}, last=ended))
    reason, _, text = message.partition(": ")
    assert found["phase"] == phase
    assert condition(found, "Pulled") == ("False", reason, text)
    assert condition(found, "Ready") == ("False", reason, text)


def test_a_puller_in_the_pod_that_needs_too_much_memory_is_not_the_runner() -> None:
    raw = pull_samples.runner({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})
    assert "the runner was killed" not in condition(in_pods(raw), "Ready")[2]


UPDATE = SourceResolution(pull_samples.SOURCE, {pull_samples.SOURCE: "sha256:new"}, 200_000_000)
INACTIVE = Decision(0, "inactive: no pending requests")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (None, "Updating"),
        (PodFailure("Retrying", "the registry does not answer", "Loading"), "UpdateFailed"),
        (PodFailure("StoreFull", "2 GiB are needed, 1 GiB is free", "Failed"), "UpdateFailed"),
    ],
)
def test_a_new_version_that_is_not_pulled_leaves_the_model_idle_and_says_why(
    failure: PodFailure | None, reason: str
) -> None:
    puller = replace(RUNNING, running=failure is None, failure=failure)
    view = PullView(pull_samples.PULLED, update=UPDATE, puller=puller, status=PROGRESS)
    found = status(view, decision=INACTIVE)
    assert (found["phase"], found["source"]) == ("Idle", pull_samples.PULLED.to_json())
    true, shown, message = condition(found, "Pulled")
    assert (true, shown) == ("True", reason)
    assert "serve until the new version sha256:new is pulled" in message
    assert (failure.message if failure is not None else "43 %") in message
    assert ("pull" in found) == (failure is None)


def test_a_rejected_claim_for_a_new_version_is_shown_and_does_not_fail_the_model() -> None:
    rejected = PodFailure("QuotaExceeded", "exceeded quota: storage", "WaitingForCapacity")
    found = status(PullView(pull_samples.PULLED, update=UPDATE, rejected=rejected), decision=INACTIVE)
    assert found["phase"] == "Idle"
    assert condition(found, "Pulled")[1] == "UpdateFailed"


def test_a_pulled_source_that_cannot_be_resolved_again_says_why() -> None:
    failure = unresolved("the registry does not answer")
    found = status(PullView(pull_samples.PULLED, not_updated=failure), decision=INACTIVE)
    assert found["phase"] == "Idle"
    assert condition(found, "Pulled")[:2] == ("True", "ResolveFailed")
    assert "the registry does not answer" in condition(found, "Pulled")[2]


def test_the_metadata_of_a_runner_that_is_replaced_is_not_that_of_the_new_version() -> None:
    earlier = RunnerInfo(replace(pull_samples.METADATA, parameter_count=1), parallel=1, context_length=2048)
    decision, pods = Decision(1, "serving requests"), [parse_pod(samples.pod())]
    replaced = PullView(pull_samples.PULLED, replaced=True)
    found = status(replaced, decision=decision, pods=pods, info=earlier)
    assert found["model"] == pull_samples.METADATA.to_json()
    found = status(PullView(pull_samples.PULLED), decision=decision, pods=pods, info=earlier)
    assert found["model"] == earlier.metadata.to_json()
