from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.errors import InvalidName
from corral_core.planning.snapshot import Decision, Demand, Replica
from corral_server.gateway.directory.directory import Endpoint
from corral_server.local.directory import LocalDirectory
from corral_server.local.files import held_back
from corral_server.local.metadata import Weights
from corral_server.local.pulls.pulls import PullState
from tests.local.parts import RecordedLog, listed, model


class FakeRunners:
    def __init__(self) -> None:
        self.ready: dict[str, tuple[Endpoint, ...]] = {}
        self.failed: dict[str, str] = {}
        self.started: dict[str, tuple[Replica, ...]] = {}

    def context_length(self, key: str) -> int:
        return 0

    def endpoints(self, key: str) -> tuple[Endpoint, ...]:
        return self.ready.get(key, ())

    def failure(self, key: str) -> str | None:
        return self.failed.get(key)

    def replicas(self, key: str) -> tuple[Replica, ...]:
        return self.started.get(key, ())


class Made:
    """A directory with its collaborators; ``changed`` are the keys of the notifications."""

    def __init__(self) -> None:
        self.runners = FakeRunners()
        self.log = RecordedLog()
        self.woken = 0
        self.changed: list[str] = []
        self.directory = LocalDirectory(self.runners, self.log, self._wake)
        self.directory.subscribe(self.changed.append)

    def _wake(self) -> None:
        self.woken += 1


LLAMA = listed(model("llama", spec={"names": ["Llama:1B", "small"]}))
QWEN = listed(model("qwen"), modified=2.0)
ENDPOINT = Endpoint("llama-1", "127.0.0.1", 1234, 4)


def made() -> Made:
    built = Made()
    built.directory.replace([LLAMA, QWEN])
    built.changed.clear()
    return built


def test_names_resolve_like_ollamas() -> None:
    directory = made().directory
    for name in ("llama:1b", "LLAMA:1b", "small", "small:latest", "library/small"):
        found = directory.find(name)
        assert found is not None
        assert found.entry.key == "default/llama"
    assert directory.find("llama") is None
    assert directory.find("unknown") is None


def test_an_invalid_name_is_an_error() -> None:
    with pytest.raises(InvalidName):
        made().directory.find("a b")


def test_the_directory_is_not_settled_before_the_first_listing() -> None:
    built = Made()
    assert not built.directory.synced()
    built.directory.replace([])
    assert built.directory.synced()


def test_entries_are_sorted_newest_first() -> None:
    assert [entry.key for entry in made().directory.entries()] == ["default/qwen", "default/llama"]


def test_subscribers_get_one_notification_when_a_runner_becomes_ready() -> None:
    built = made()
    built.runners.ready["default/llama"] = (ENDPOINT,)
    built.directory.changed("default/llama")
    built.directory.changed("default/llama")
    assert built.changed == ["default/llama"]
    entry = built.directory.get("default/llama")
    assert entry is not None
    assert entry.endpoints == (ENDPOINT,)


def test_an_entry_is_the_same_object_until_it_changes() -> None:
    built = made()
    entry = built.directory.get("default/llama")
    built.directory.changed("default/llama")
    built.directory.replace([LLAMA, QWEN])
    assert built.directory.get("default/llama") is entry
    assert built.changed == []


def test_a_draining_model_has_no_endpoints_for_new_requests() -> None:
    built = made()
    built.runners.ready["default/llama"] = (ENDPOINT,)
    built.directory.drain("default/llama", True)
    entry = built.directory.get("default/llama")
    assert entry is not None
    assert entry.endpoints == ()
    built.directory.drain("default/llama", False)
    entry = built.directory.get("default/llama")
    assert entry is not None
    assert entry.endpoints == (ENDPOINT,)


def test_demand_is_a_level_and_wakes_the_planner() -> None:
    built = made()
    woken = built.woken
    built.directory.report_demand("default/llama", 2, 100.0)
    assert built.directory.demand("default/llama") == Demand(2, 100.0)
    assert built.woken > woken
    built.directory.report_demand("default/llama", 0, None)
    assert built.directory.demand("default/llama") is None


def test_pending_requests_of_a_loaded_model_are_not_logged() -> None:
    built = made()
    built.runners.ready["default/llama"] = (ENDPOINT,)
    built.directory.changed("default/llama")
    built.directory.report_demand("default/llama", 1, 100.0)
    built.directory.report_demand("default/llama", 0, None)
    assert built.log.events("demand") == []


def test_only_the_start_and_the_end_of_demand_are_logged() -> None:
    built = made()
    for waiting in (1, 2, 3):
        built.directory.report_demand("default/llama", waiting, 100.0)
    built.directory.report_demand("default/llama", 0, None)
    assert [event["pending"] for event in built.log.events("demand")] == [1, 0]


@pytest.mark.parametrize(
    ("spec", "failure"),
    [
        ({"suspend": True}, "model 'm:latest' is suspended"),
        ({"replicas": 0}, "model 'm:latest' is scaled to zero by spec.replicas"),
    ],
)
def test_a_disabled_model_has_the_reason_as_failure(spec: dict[str, object], failure: str) -> None:
    built = Made()
    built.directory.replace([listed(model(spec=spec))])
    found = built.directory.find("m")
    assert found is not None
    assert found.entry.unavailable_reason == failure


def test_missing_weights_and_failed_starts_are_failures() -> None:
    built = Made()
    built.directory.replace([replace(LLAMA, weights=Weights(None, "there is no file")), QWEN])
    built.runners.failed["default/qwen"] = "out of memory"
    built.directory.changed("default/qwen")
    assert [entry.unavailable_reason for entry in built.directory.entries()] == ["out of memory", "there is no file"]


def test_the_younger_of_two_models_with_one_name_keeps_its_other_names() -> None:
    older = replace(model("older", spec={"names": ["x"]}), created=1.0)
    younger = replace(model("younger", spec={"names": ["x", "y"]}), created=2.0)
    built = Made()
    built.directory.replace([listed(younger), listed(older)])
    found = [built.directory.find(name) for name in ("x", "y", "default/younger")]
    assert [one.entry.key if one else None for one in found] == [
        "default/older",
        "default/younger",
        "default/younger",
    ]
    assert {entry.names for entry in built.directory.entries()} == {("x:latest",), ("y:latest",)}
    [event] = built.log.events("name_lost")
    assert event["model"] == "younger"
    reached = "clients reach this Model as y:latest"
    assert event["reason"] == f"the name x:latest belongs to Model default/older; {reached}"


def test_removing_a_model_notifies_subscribers() -> None:
    built = made()
    built.directory.replace([QWEN])
    assert built.directory.find("small") is None
    assert built.directory.get("default/llama") is None
    assert built.changed == ["default/llama"]


def test_an_earlier_version_tells_the_spec_that_follows_and_why_it_cannot_be_pulled() -> None:
    uri = "ollama://x"
    newer = listed(model("llama", spec={"source": uri}))
    newer = replace(newer, weights=Weights(None, missing=(uri,)), pulling=(uri,))
    [held] = held_back([newer], {LLAMA.model.key: LLAMA})
    state = PullState(problem="the registry has no such model")
    directory = LocalDirectory(FakeRunners(), RecordedLog(), lambda: None, pull=lambda _uri: state)
    directory.replace([held])
    entry = directory.entries()[0]
    assert entry.model == LLAMA.model
    assert entry.latest_spec == newer.model.spec
    assert entry.latest_problem is not None
    assert entry.latest_problem.endswith("cannot be pulled: the registry has no such model")
    assert entry.unavailable_reason is None


def test_the_error_of_a_failed_pull_says_when_it_is_tried_again() -> None:
    uri = "ollama://x"
    waiting = replace(
        listed(model("llama", spec={"source": uri})), weights=Weights(None, missing=(uri,)), pulling=(uri,)
    )
    state = PullState(problem="no route", retry=5.0)
    directory = LocalDirectory(FakeRunners(), RecordedLog(), lambda: None, pull=lambda _uri: state)
    directory.replace([waiting])
    entry = directory.entries()[0]
    assert entry.pull_problem is not None
    assert entry.pull_problem.endswith("cannot be pulled: no route")
    assert entry.unavailable_reason == f"{entry.pull_problem} (next attempt in 5 s)"


@pytest.mark.parametrize(
    ("decision", "started", "ready", "phase"),
    [
        (None, 0, 0, "Idle"),
        (Decision(0, "no memory", waiting_for_capacity=True), 0, 0, "WaitingForCapacity"),
        (Decision(1, "requests are pending"), 1, 0, "Loading"),
        (Decision(1, "in use"), 1, 1, "Ready"),
    ],
)
def test_the_observed_state_has_the_phase_and_the_planners_reason(
    decision: Decision | None, started: int, ready: int, phase: str
) -> None:
    built, key = made(), "default/llama"
    built.runners.started[key] = (Replica("llama-1", bool(ready), False, 1.0),) * started
    built.runners.ready[key] = (ENDPOINT,) * ready
    built.directory.changed(key)
    if decision is not None:
        built.directory.decided(key, decision)
    state = built.directory.observed(key)
    assert state is not None
    assert (state.phase, state.replicas, state.ready) == (phase, started, ready)
    assert state.reason == (decision.reason if decision is not None else "")
    assert (state.namespace, len(state.nodes)) == (None, ready)


def test_a_model_that_cannot_be_served_is_observed_with_the_reason() -> None:
    built, key = made(), "default/llama"
    built.runners.failed[key] = "not a GGUF file"
    built.directory.changed(key)
    failed = built.directory.observed(key)
    assert failed is not None
    assert (failed.phase, failed.reason) == ("Failed", "not a GGUF file")
    built.directory.drain("default/qwen", True)
    draining = built.directory.observed("default/qwen")
    assert draining is not None
    assert draining.phase == "Draining"
    assert built.directory.observed("default/unknown") is None
