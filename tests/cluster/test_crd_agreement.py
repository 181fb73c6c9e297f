"""API server and parser accept and reject the same Models, with odd values in any field.

Two differences are allowed and left out: nulls (the parser treats them as unset, the server rejects some) and whole
numbers written as fractions (the server accepts them where no rule reads the number).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral_core.base.errors import InvalidModel
from corral_core.model.model import ModelSpec
from corral_core.model.resource import parse_model
from tests.cluster.api import ApiError
from tests.cluster.cluster import Cluster
from tests.core.model_cases import EVERYTHING, REMOTE_SOURCES, SOURCE, Good, document

pytestmark = pytest.mark.cluster

Path = tuple[str | int, ...]

PLAIN: Mapping[str, object] = {
    "source": SOURCE,
    "names": ["a"],
    "contextLength": 4,
    "contextPolicy": "Grow",
    "maxContextLength": 4,
    "parallel": 1,
    "keepAlive": "5m",
    "keepAliveMin": 1,
    "keepAliveMax": "2h",
    "minReplicas": 0,
    "replicas": 0,
}
TEXTS = [
    *("", "a", "A", "a b", "a/b", "A/b", "a.b", "a_b", "a-", "-a", "é", "a\nb", "a" * 64, "a" * 300, "/x", "x/y/z"),
    *("0", "1", "-0", "00s", "1.h", ".5h", "5m", "-1s", "1h1", "1d", "9223372036s", "9223372037s", "auto"),
    *("4Gi", "1e3", "1e", "+1", "-1Gi", "1.", "1ki", "100m", "corral.dev/x", "example.com/", "a=b"),
    *("file:///a", "file:////a", "file:///.", "file:///..", "file:///.b", "file:///a b", "FILE:///a", "file:///a%2f"),
    *("pvc://a.b/c", "pvc://a..b/c", "pvc://-a/b", "package://a.b/c", "package://a..b/c", "package://1a/b", "hf://a/b"),
    *("a:b", "a:", ":", "h/n/m:t", "h:1/n/m", "h/n.m/m", "Exists", "NoSchedule"),
]
NUMBERS = [0, 1, -1, 3, 4, 256, 257, 2**24, 2**24 + 1, 2**31, 2**53, -(2**63), 9223372036, 9223372037, 0.5, 1e300]
OTHERS: list[object] = [True, False, {}, [], ["a"], ["a", "A"], [1], {"a": 1}, {"a": "b"}, [{}], [{"name": "a"}]]
SOURCE_PARTS = [
    *("", "/", ":", "@", "?", "#", "%", ".", "..", "//", "/../", "-", "_", " ", "A", "0", "é", "\n", "\x7f", "\\", "'"),
    *("%2e", "%2F", "%00", "%0A", "?sig=", "&token=", ":0", ":65536", ":080", "user:pass@", "x" * 130, "x" * 260),
]
"""Texts that are put into a source."""
ODD = [*TEXTS, *NUMBERS, *OTHERS]


def _paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every value in a document."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _paths(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


PLACES = list(_paths(dict(EVERYTHING)))


def _has(place: object, step: str | int) -> bool:
    if isinstance(place, dict):
        return step in place
    return isinstance(place, list) and isinstance(step, int) and step < len(place)


def _put(spec: dict[str, object], path: Path, value: object) -> None:
    """Set the value at ``path``, unless an earlier change has removed the path."""
    place: object = spec
    for step in path[:-1]:
        if not _has(place, step):
            return
        place = place[step]  # type: ignore[index]  # it has the step
    last = path[-1]
    if _has(place, last):
        place[last] = value  # type: ignore[index]  # it has the step


def _changed(base: Mapping[str, object], *changes: tuple[Path, object]) -> Good:
    spec = copy.deepcopy(dict(base))
    for path, value in changes:
        _put(spec, path, copy.deepcopy(value))
    return Good("odd", spec)


def _parsed(case: Good) -> ModelSpec | None:
    try:
        return parse_model(document(case)).spec
    except InvalidModel:
        return None


def _stored(cluster: Cluster, case: Good) -> ModelSpec | None:
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    path = "/apis/corral.dev/v1alpha1/namespaces/default/models"
    try:
        return parse_model(cluster.api.request("POST", path, body=document(case), query=query)).spec
    except ApiError as error:
        if error.status not in (400, 422):
            raise
        return None


@pytest.mark.parametrize("field", list(PLAIN))
def test_they_agree_on_every_odd_value_of_a_field(cluster: Cluster, field: str) -> None:
    for value in ODD:
        case = _changed(PLAIN, ((field,), value))
        assert _parsed(case) == _stored(cluster, case), value


@given(
    st.sampled_from([*REMOTE_SOURCES, "file:///a/b.gguf", "pvc://a-b.c/d.gguf", "package://a.b/c.gguf"]),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(SOURCE_PARTS)), min_size=1, max_size=2),
)
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_they_agree_on_changed_sources(cluster: Cluster, uri: str, changes: list[tuple[int, str]]) -> None:
    for at, part in changes:
        uri = f"{uri[:at]}{part}{uri[at + len(part) % 2 :]}"
    case = Good("odd", {"source": uri})
    assert _parsed(case) == _stored(cluster, case), uri


@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(ODD)), min_size=1, max_size=2))
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_they_agree_on_odd_values_anywhere(cluster: Cluster, changes: list[tuple[Path, object]]) -> None:
    case = _changed(EVERYTHING, *changes)
    assert _parsed(case) == _stored(cluster, case)
