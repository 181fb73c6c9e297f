"""Objects as last heard: versions decide, whatever comes last."""

from __future__ import annotations

from corral_operator.cache import Cache
from corral_operator.objects import DeploymentObject, parse_deployment
from tests.operator.samples import deployment

KEY = "lab/model-tiny"


def at(version: int, replicas: int = 0) -> DeploymentObject:
    return parse_deployment(deployment(replicas=replicas, version=version))


def test_an_older_object_does_not_replace_a_newer_one() -> None:
    cache: Cache[DeploymentObject] = Cache()
    assert cache.put(at(5, replicas=1))
    assert not cache.put(at(4, replicas=0))
    known = cache.get(KEY)
    assert known is not None
    assert known.replicas == 1


def test_a_list_older_than_a_deletion_does_not_bring_the_object_back() -> None:
    cache: Cache[DeploymentObject] = Cache()
    cache.put(at(5))
    cache.drop(at(7))
    assert cache.relist([at(5)], 6) == set()
    assert cache.get(KEY) is None


def test_a_list_takes_away_what_was_deleted_unnoticed() -> None:
    cache: Cache[DeploymentObject] = Cache()
    cache.put(at(5))
    assert cache.relist([], 9) == {"lab/tiny"}
    assert cache.get(KEY) is None
    assert list(cache.of_model("lab/tiny")) == []


def test_a_list_keeps_what_is_newer_than_itself() -> None:
    cache: Cache[DeploymentObject] = Cache()
    cache.put(at(12))
    assert cache.relist([], 9) == set()
    assert cache.get(KEY) is not None


def test_an_object_made_anew_after_its_deletion_is_known_again() -> None:
    cache: Cache[DeploymentObject] = Cache()
    cache.put(at(5))
    cache.drop(at(7))
    assert cache.put(at(8))
    assert [item.meta.version for item in cache.of_model("lab/tiny")] == [8]
