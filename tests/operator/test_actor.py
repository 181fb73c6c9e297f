"""What a Model owns is made as decided, and only when something differs."""

from __future__ import annotations

import asyncio

import pytest

from corral_core.jsonfields import dig, mapping, objects
from corral_core.node import parse_node
from corral_operator import paths
from corral_operator.actor import Actor, Foreign
from corral_operator.config import RunnerDefaults
from corral_operator.objects import ModelObject, parse_model_object
from corral_operator.observe import DELETED, Store
from tests.operator import samples
from tests.operator.fake_api import FakeApi

DEPLOYMENT = paths.deployments("lab", "model-tiny")
SERVICE = paths.services("lab", "model-tiny")


class Nothing:
    """No weights are looked at."""

    async def ensure(self, item: ModelObject) -> None:
        return

    def forget(self, model: str) -> None:
        return


class Bench:
    """An actor over an API server in memory."""

    def __init__(self) -> None:
        self.api = FakeApi()
        self.store = Store()
        self.actor = Actor(self.api, self.store, RunnerDefaults(), Nothing())

    def ensure(self, replicas: int, item: ModelObject | None = None) -> list[str]:
        """The paths that it wrote."""
        before = len(self.api.writes)
        item = item or parse_model_object(samples.model())
        self.store.models.put(item)
        asyncio.run(self.actor.ensure(item, replicas))
        return self.api.writes[before:]

    def parallel(self) -> object:
        pod = mapping(self.api.objects[DEPLOYMENT], "spec", "template", "spec")
        variables = objects(objects(pod, "containers")[0], "env")
        return next(item["value"] for item in variables if item["name"] == "OLLAMA_NUM_PARALLEL")

    def replicas(self) -> object:
        return dig(self.api.objects[DEPLOYMENT], "spec", "replicas")


def test_what_does_not_exist_is_made_the_deployment_first() -> None:
    bench = Bench()
    assert bench.ensure(1) == [DEPLOYMENT, SERVICE]
    assert bench.replicas() == 1


def test_what_is_as_it_should_be_is_not_written_again() -> None:
    bench = Bench()
    bench.ensure(1)
    assert bench.ensure(1) == []


def test_other_replicas_write_the_deployment_alone() -> None:
    bench = Bench()
    bench.ensure(0)
    assert bench.ensure(1) == [DEPLOYMENT]
    assert bench.replicas() == 1


def test_an_edited_model_writes_the_deployment_anew() -> None:
    bench = Bench()
    bench.ensure(1)
    edited = parse_model_object(samples.model(spec={"system": "Be kind."}, version=11))
    assert bench.ensure(1, edited) == [DEPLOYMENT]


def test_replicas_that_somebody_else_set_are_put_right() -> None:
    bench = Bench()
    bench.ensure(1)
    bench.store.heard_deployment(_later(bench, replicas=5, generation=2), kind="MODIFIED")
    assert bench.ensure(1) == [DEPLOYMENT]


def test_another_edit_by_somebody_else_is_put_right() -> None:
    bench = Bench()
    bench.ensure(1)
    bench.store.heard_deployment(_later(bench, replicas=1, generation=2), kind="MODIFIED")
    assert bench.ensure(1) == [DEPLOYMENT]
    assert bench.ensure(1) == []


def test_a_change_of_the_deployments_status_writes_nothing() -> None:
    bench = Bench()
    bench.ensure(1)
    bench.store.heard_deployment(_later(bench, replicas=1, generation=1), kind="MODIFIED")
    assert bench.ensure(1) == []


def test_a_deleted_deployment_is_made_anew() -> None:
    bench = Bench()
    bench.ensure(1)
    bench.store.heard_deployment(_later(bench, replicas=1, generation=1), kind=DELETED)
    del bench.api.objects[DEPLOYMENT]
    assert bench.ensure(1) == [DEPLOYMENT]


def test_an_object_that_is_not_ours_is_left_alone() -> None:
    bench = Bench()
    theirs = {"metadata": {"name": "model-tiny", "labels": {"app": "theirs"}}, "spec": {"selector": {"app": "theirs"}}}
    bench.api.objects[SERVICE] = theirs
    with pytest.raises(Foreign, match="model-tiny"):
        bench.ensure(1)
    assert bench.api.objects[SERVICE] == theirs


def test_a_runner_is_made_smaller_where_no_node_could_take_the_best_and_stays_so_while_it_runs() -> None:
    bench = Bench()
    bench.store.nodes.known = True
    bench.store.nodes.set_node("small", parse_node(samples.node("small", memory="500Mi")))
    bench.ensure(1)
    assert bench.parallel() == "1"
    bench.store.nodes.set_node("large", parse_node(samples.node("large", memory="8Gi")))
    assert bench.ensure(1) == []
    bench.ensure(0)
    assert bench.parallel() == "4"
    bench.store.nodes.set_node("large", None)
    bench.ensure(1)
    assert bench.parallel() == "1"


def _later(bench: Bench, *, replicas: int, generation: int) -> dict[str, object]:
    """The Deployment as a watch tells of it after something changed."""
    item = dict(bench.api.objects[DEPLOYMENT])
    bench.api.version += 1
    known = item["metadata"]
    assert isinstance(known, dict)
    item["metadata"] = {**known, "resourceVersion": str(bench.api.version), "generation": generation}
    item["spec"] = {"replicas": replicas}
    return item
