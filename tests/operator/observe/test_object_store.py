"""Object store: resource versions decide, whatever order messages arrive in."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.json_fields import JsonObject, get_str
from corral_kube.unreadable import UnreadableObjects
from corral_operator.observe.object_store import ObjectStore
from corral_operator.observe.objects import DeploymentObject, NodeObject, node_parser, parse_deployment
from tests.operator import samples
from tests.operator.samples import deployment

KEY = "lab/model-tiny"


@pytest.fixture
def store() -> ObjectStore[DeploymentObject]:
    return ObjectStore(parse_deployment)


def test_an_older_object_does_not_replace_a_newer_one(store: ObjectStore[DeploymentObject]) -> None:
    assert store.apply(deployment(version=5, replicas=1))
    assert store.apply(deployment(version=4, replicas=0)) is None
    known = store.get(KEY)
    assert known is not None
    assert known.replicas == 1


def test_a_list_older_than_a_deletion_does_not_restore_the_object(store: ObjectStore[DeploymentObject]) -> None:
    store.apply(deployment(version=5))
    store.delete(deployment(version=7))
    assert store.replace([deployment(version=5)], "6") == []
    assert store.get(KEY) is None


def test_a_list_removes_objects_whose_deletion_was_missed(store: ObjectStore[DeploymentObject]) -> None:
    store.apply(deployment(version=5))
    assert [item.meta.key for item in store.replace([], "9")] == [KEY]
    assert store.get(KEY) is None
    assert list(store.of_model("lab/tiny")) == []


def test_a_list_keeps_objects_that_are_newer_than_itself(store: ObjectStore[DeploymentObject]) -> None:
    store.apply(deployment(version=12))
    assert store.replace([], "9") == []
    assert store.get(KEY) is not None


def test_an_object_created_again_after_its_deletion_is_stored(store: ObjectStore[DeploymentObject]) -> None:
    store.apply(deployment(version=5))
    store.delete(deployment(version=7))
    assert store.apply(deployment(version=8))
    assert [item.meta.version for item in store.of_model("lab/tiny")] == [8]


def test_a_newer_version_with_equal_contents_is_stored_and_is_no_change() -> None:
    changes: list[NodeObject | None] = []
    store = ObjectStore(node_parser(), lambda before, after: changes.append(after))
    assert store.apply(samples.node("n", version=1))
    assert store.apply(samples.node("n", version=2, heartbeat="later")) is None
    known = store.get("/n")
    assert known is not None
    assert known.meta.version == 2
    assert len(changes) == 1


@dataclass(frozen=True)
class Moment:
    """The server at one version: the object, or None; ``event`` is the object of the watch event."""

    version: int
    item: JsonObject | None
    event: JsonObject
    deleted: bool


def history(changes: list[bool]) -> list[Moment]:
    """Return the life of one key: each step changes the object or deletes it; the next step creates another one."""
    moments: list[Moment] = []
    incarnation, exists = 0, False
    for version, deletes in enumerate(changes, start=1):
        deleted = deletes and exists
        if not deleted and not exists:
            incarnation += 1
        event = samples.with_metadata(deployment(version=version), uid=f"uid-{incarnation}")
        exists = not deleted
        moments.append(Moment(version, None if deleted else event, event, deleted))
    return moments


def deliver(store: ObjectStore[DeploymentObject], message: str, moment: Moment) -> None:
    if message == "list":
        store.replace([moment.item] if moment.item else [], str(moment.version))
    elif moment.deleted:
        if message == "watch":
            store.delete(moment.event)
    else:
        store.apply(moment.event)


changes_strategy = st.lists(st.booleans(), min_size=1, max_size=12)
messages_strategy = st.lists(st.tuples(st.sampled_from(["watch", "answer", "list"]), st.integers(0, 30)), max_size=40)


@given(changes_strategy, messages_strategy)
def test_after_the_newest_list_the_store_equals_the_server(
    changes: list[bool], messages: list[tuple[str, int]]
) -> None:
    moments = history(changes)
    store = ObjectStore(parse_deployment)
    for message, index in messages:
        deliver(store, message, moments[index % len(moments)])
    deliver(store, "list", moments[-1])
    last = moments[-1].item
    expected = parse_deployment(last) if last is not None else None
    assert store.get(KEY) == expected
    assert list(store.of_model("lab/tiny")) == ([expected] if expected else [])
    assert expected is None or expected.meta.uid == get_str(last, "metadata", "uid")


@given(changes_strategy, messages_strategy)
def test_the_version_of_a_stored_object_never_decreases(changes: list[bool], messages: list[tuple[str, int]]) -> None:
    moments = history(changes)
    store = ObjectStore(parse_deployment)
    for message, index in messages:
        before = store.get(KEY)
        deliver(store, message, moments[index % len(moments)])
        after = store.get(KEY)
        if before is not None and after is not None:
            assert after.meta.version >= before.meta.version


def test_an_object_that_cannot_be_processed_leaves_the_others_and_its_known_version() -> None:
    def parse(raw: JsonObject) -> DeploymentObject:
        if get_str(raw, "metadata", "labels", "bad"):
            raise ValueError("Exceeds the limit (4300 digits) for integer string conversion")
        return parse_deployment(raw)

    def bad(name: str, version: int) -> JsonObject:
        raw = samples.deployment(name, version=version)
        return samples.with_metadata(raw, labels={"corral.dev/model": name, "bad": "1"})

    unreadable = UnreadableObjects()
    store = ObjectStore(parse)
    store.record_unreadable("deployments", unreadable)
    store.replace([samples.deployment("a"), bad("b", 10), samples.deployment("c")], "10")
    assert [item.meta.key for item in store.all()] == ["lab/model-a", "lab/model-c"]
    assert store.apply(bad("a", 11)) is None
    assert [item.meta.version for item in store.of_model("lab/a")] == [10]
    assert list(unreadable.listed()) == [("deployments", "lab/model-b"), ("deployments", "lab/model-a")]
    assert store.delete(bad("a", 12)) is not None
    store.replace([samples.deployment("b", version=13), samples.deployment("c")], "13")
    assert not list(unreadable.listed())
