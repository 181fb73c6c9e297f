from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.errors import InvalidName
from corral_core.snapshot import Demand
from corral_server.gateway.directory import Endpoint
from corral_server.local.directory import LocalDirectory
from corral_server.local.weights import Weights
from tests.local.parts import Heard, listed, model


class FakeRunners:
    def __init__(self) -> None:
        self.ready: dict[str, tuple[Endpoint, ...]] = {}
        self.failed: dict[str, str] = {}

    def endpoints(self, key: str) -> tuple[Endpoint, ...]:
        return self.ready.get(key, ())

    def failure(self, key: str) -> str | None:
        return self.failed.get(key)


class Made:
    """A directory with what surrounds it; ``changed`` are the keys that a subscriber heard."""

    def __init__(self) -> None:
        self.runners = FakeRunners()
        self.log = Heard()
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


def test_names_are_found_as_ollama_finds_them() -> None:
    directory = made().directory
    for name in ("llama:1b", "LLAMA:1b", "small", "small:latest", "library/small"):
        entry = directory.find(name)
        assert entry is not None
        assert entry.key == "default/llama"
    assert directory.find("llama") is None
    assert directory.find("unknown") is None


def test_a_name_that_cannot_be_parsed_is_an_error() -> None:
    with pytest.raises(InvalidName):
        made().directory.find("a b")


def test_nothing_is_settled_before_the_first_listing() -> None:
    built = Made()
    assert not built.directory.settled()
    built.directory.replace([])
    assert built.directory.settled()


def test_entries_come_newest_first() -> None:
    assert [entry.key for entry in made().directory.entries()] == ["default/qwen", "default/llama"]


def test_runners_that_become_ready_are_told_to_subscribers_once() -> None:
    built = made()
    built.runners.ready["default/llama"] = (ENDPOINT,)
    built.directory.changed("default/llama")
    built.directory.changed("default/llama")
    assert built.changed == ["default/llama"]
    entry = built.directory.get("default/llama")
    assert entry is not None
    assert entry.endpoints == (ENDPOINT,)


def test_an_entry_is_the_same_object_until_something_of_it_changes() -> None:
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


def test_demand_is_kept_as_a_level_and_wakes_the_planner() -> None:
    built = made()
    woken = built.woken
    built.directory.demand("default/llama", 2, 100.0)
    assert built.directory.wanted("default/llama") == Demand(2, 100.0)
    assert built.woken > woken
    built.directory.demand("default/llama", 0, None)
    assert built.directory.wanted("default/llama") is None


def test_a_wait_for_a_slot_of_a_warm_model_is_not_logged() -> None:
    built = made()
    built.runners.ready["default/llama"] = (ENDPOINT,)
    built.directory.changed("default/llama")
    built.directory.demand("default/llama", 1, 100.0)
    built.directory.demand("default/llama", 0, None)
    assert built.log.events("demand") == []


def test_only_the_beginning_and_the_end_of_demand_are_logged() -> None:
    built = made()
    for waiting in (1, 2, 3):
        built.directory.demand("default/llama", waiting, 100.0)
    built.directory.demand("default/llama", 0, None)
    assert [event["waiting"] for event in built.log.events("demand")] == [1, 0]


@pytest.mark.parametrize(
    ("spec", "failure"),
    [
        ({"suspend": True}, "model 'm:latest' is suspended"),
        ({"replicas": 0}, "model 'm:latest' is scaled to zero by spec.replicas"),
    ],
)
def test_a_model_that_is_switched_off_says_so(spec: dict[str, object], failure: str) -> None:
    built = Made()
    built.directory.replace([listed(model(spec=spec))])
    entry = built.directory.find("m")
    assert entry is not None
    assert entry.failure == failure


def test_missing_weights_and_failed_starts_are_failures() -> None:
    built = Made()
    built.directory.replace([replace(LLAMA, weights=Weights(None, "there is no file")), QWEN])
    built.runners.failed["default/qwen"] = "out of memory"
    built.directory.changed("default/qwen")
    assert [entry.failure for entry in built.directory.entries()] == ["out of memory", "there is no file"]


def test_the_younger_of_two_models_with_one_name_is_refused_and_says_why() -> None:
    older = replace(model("older", spec={"names": ["x"]}), created=1.0)
    younger = replace(model("younger", spec={"names": ["x", "y"]}), created=2.0)
    built = Made()
    built.directory.replace([listed(younger), listed(older)])
    entry, refused = built.directory.find("x"), built.directory.find("y")
    assert entry is not None
    assert entry.key == "default/older"
    assert refused is not None
    assert str(refused.failure).startswith("model 'younger' is not served: ")
    assert "x:latest" in str(refused.failure)
    assert built.directory.refused("default/younger")
    assert [entry.key for entry in built.directory.entries()] == ["default/older"]
    assert [event["model"] for event in built.log.events("name-refused")] == ["younger"]


def test_a_removed_model_is_gone_and_its_subscribers_hear_of_it() -> None:
    built = made()
    built.directory.replace([QWEN])
    assert built.directory.find("small") is None
    assert built.directory.get("default/llama") is None
    assert built.changed == ["default/llama"]
