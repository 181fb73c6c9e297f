"""The explanation of ``kubectl corral why``."""

from __future__ import annotations

import pytest

from corral_kubectl.advice import advice
from corral_kubectl.why import Observed, why_lines
from tests.kubectl.samples import NOW, ago, condition, container, event, model, pod

WAITING = model(
    "llama",
    condition("Accepted", "True", "Valid", "the Model is valid"),
    condition("Scheduled", "False", "WaitingForCapacity", "qwen is drained for it"),
    condition("Ready", "True", "WaitingForCapacity", "other Models have the capacity"),
    phase="WaitingForCapacity",
    placement={"why": "expected: 1 GPU"},
    demand=[{"gateway": "g", "waiting": 3, "oldest": ago(75), "renewed": ago(1)}],
)


def section(lines: list[str], title: str) -> list[str]:
    """Return the lines of a section without their indent."""
    begin = lines.index(title) + 1
    end = lines.index("", begin) if "" in lines[begin:] else len(lines)
    return [line.removeprefix("  ") for line in lines[begin:end]]


def test_a_model_that_waits_for_capacity_is_explained() -> None:
    lines = why_lines(Observed(WAITING), NOW)
    assert lines[0] == "Model lab/llama is WaitingForCapacity: other Models have the capacity"
    assert section(lines, "Conditions") == ["Scheduled is False (WaitingForCapacity): qwen is drained for it"]
    assert section(lines, "Placement") == ["expected: 1 GPU"]
    assert section(lines, "Pending requests") == ["3, the oldest since 1m15s"]
    assert section(lines, "What to do") == [
        "Wait until the other Models are idle, unload one (`kubectl corral unload`), or add a node."
    ]
    assert "Pods" not in lines


def test_a_pull_is_explained_with_its_speed() -> None:
    pull = {"completedBytes": 2 * 2**30, "totalBytes": 4 * 2**30, "rate": 20 * 2**20, "secondsLeft": 102}
    lines = why_lines(Observed(model("llama", phase="Pulling", pull=pull)), NOW)
    assert section(lines, "Pull") == ["2 GiB of 4 GiB pulled, 20 MiB/s, 1m42s left"]


def test_pods_have_what_they_wait_for_and_why_they_ended() -> None:
    unscheduled = condition("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")
    crashing = {
        "name": "runner",
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "not a GGUF file"}},
    }
    pods = [
        pod("new", node="", conditions=[unscheduled], phase="Pending"),
        pod("old", created=600, containerStatuses=[crashing]),
        pod("good", containerStatuses=[container("runner", running={})]),
    ]
    waits = "runner waits: CrashLoopBackOff back-off; runner ended with status 1: not a GGUF file"
    assert section(why_lines(Observed(model(phase="Failed"), pods), NOW), "Pods") == [
        "new: Pending, no node yet, 1m: 0/3 nodes are available",
        f"old: Running, node-a, 10m: {waits}",
        "good: Running, node-a, 1m",
    ]


def test_the_last_events_are_shown_the_newest_last() -> None:
    events = [event("Loading", f"number {number}", seconds=number, count=number) for number in range(1, 12)]
    shown = section(why_lines(Observed(model(phase="Loading"), events=events), NOW), "Events")
    assert len(shown) == 8
    assert shown[-1] == "1s ago Loading (Model): number 1"
    assert shown[0] == "8s ago Loading (Model): number 8 (8 times)"


def test_what_the_user_may_not_list_is_named() -> None:
    lines = why_lines(Observed(model(phase="Ready"), hidden=["pods"]), NOW)
    assert section(lines, "What to do") == [
        "Nothing: it serves requests.",
        "You may not list pods in this namespace, so they are missing above.",
    ]


@pytest.mark.parametrize(
    ("phase", "conditions", "expected"),
    [
        ("Failed", [condition("Stalled", "True", "NoSuitableNode")], "quantization"),
        ("Failed", [condition("Ready", "False", "QuotaExceeded")], "ResourceQuota"),
        ("Suspended", [condition("Ready", "False", "Suspended")], "spec.suspend"),
        ("Idle", [condition("Loaded", "False", "LoadFailed")], "kubectl corral logs llama"),
        ("Idle", [condition("Loaded", "False", "Idle")], "kubectl corral load llama"),
        ("", [], "Is the operator running?"),
        ("Failed", [condition("Ready", "False", "SomethingNew")], "kubectl corral logs llama"),
    ],
)
def test_there_is_advice_for_each_state(phase: str, conditions: list[dict[str, object]], expected: str) -> None:
    found = advice(model("llama", *conditions, phase=phase), [])
    assert len(found) == 1
    assert expected in found[0]


def test_a_killed_container_is_a_reason_too() -> None:
    killed = {"name": "runner", "state": {}, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    found = advice(model(phase="Loading"), [pod("a", containerStatuses=[killed])])
    assert found == ["Raise spec.pod.resources.limits.memory, or lower spec.contextLength or spec.parallel."]
