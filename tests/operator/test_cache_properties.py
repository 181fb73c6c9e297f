"""Whatever order messages come in: after the last list the cache is the server, and it never goes back in time."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from corral_operator.cache import Cache
from corral_operator.objects import DeploymentObject, parse_deployment
from tests.operator.samples import deployment

KEY = "lab/model-tiny"


@dataclass(frozen=True)
class Moment:
    """The server at one version: the object, or None; ``told`` is what a watch said of the change."""

    version: int
    item: DeploymentObject | None
    told: DeploymentObject
    deleted: bool


def at(version: int, generation: int) -> DeploymentObject:
    item = parse_deployment(deployment(version=version))
    return replace(item, meta=replace(item.meta, uid=f"uid-{generation}"))


def history(changes: list[bool]) -> list[Moment]:
    """One object's life: each step changes it, or deletes it (and the next step makes another one)."""
    moments: list[Moment] = []
    generation, there = 0, False
    for version, deletes in enumerate(changes, start=1):
        deleted = deletes and there
        if not deleted and not there:
            generation += 1
        told = at(version, generation)
        there = not deleted
        moments.append(Moment(version, None if deleted else told, told, deleted))
    return moments


def deliver(cache: Cache[DeploymentObject], kind: str, moment: Moment) -> None:
    if kind == "list":
        cache.relist([moment.item] if moment.item else [], moment.version)
    elif moment.deleted:
        if kind == "watch":
            cache.drop(moment.told)
    else:
        cache.put(moment.told)


messages = st.lists(st.tuples(st.sampled_from(["watch", "answer", "list"]), st.integers(0, 30)), max_size=40)


@given(st.lists(st.booleans(), min_size=1, max_size=12), messages)
def test_after_the_newest_list_the_cache_is_the_server(changes: list[bool], sent: list[tuple[str, int]]) -> None:
    moments = history(changes)
    cache: Cache[DeploymentObject] = Cache()
    for kind, index in sent:
        deliver(cache, kind, moments[index % len(moments)])
    deliver(cache, "list", moments[-1])
    assert cache.get(KEY) == moments[-1].item
    assert list(cache.of_model("lab/tiny")) == ([moments[-1].item] if moments[-1].item else [])


@given(st.lists(st.booleans(), min_size=1, max_size=12), messages)
def test_an_object_is_never_replaced_by_an_older_one(changes: list[bool], sent: list[tuple[str, int]]) -> None:
    moments = history(changes)
    cache: Cache[DeploymentObject] = Cache()
    for kind, index in sent:
        before = cache.get(KEY)
        deliver(cache, kind, moments[index % len(moments)])
        after = cache.get(KEY)
        if before is not None and after is not None:
            assert after.meta.version >= before.meta.version
