"""Weights are known before anything starts, whatever happens to whoever finds out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from corral_core.jsonfields import Json, dig, mapping, objects, text
from corral_core.packed import pack
from corral_core.snapshot import Decision, Policy
from corral_kube.errors import Forbidden
from corral_operator import paths
from corral_operator.config import RunnerDefaults
from corral_operator.inspection import PATIENCE, Inspection
from corral_operator.inspectors import inspector_pod, parse_inspector
from corral_operator.objects import ModelObject, parse_model_object
from corral_operator.observe import DELETED, Store
from corral_operator.status import View, status_of
from tests.operator import samples
from tests.operator.fake_api import FakeApi

NOW = 1_800_000_000.0


class Bench:
    """Inspections over an API server in memory; ``woken`` are the keys that are to be looked at at once."""

    def __init__(self, limit: int = 4) -> None:
        self.api = FakeApi()
        self.now = NOW
        self.woken: list[str] = []
        self.start(limit)

    def start(self, limit: int = 4) -> None:
        """A new operator, which knows nothing yet."""
        self.store = Store()
        self.inspection = Inspection(
            self.api, self.store, RunnerDefaults(), limit=limit, wake=self._wake, clock=lambda: self.now
        )

    def ensure(self, name: str = "tiny", *, version: int = 10, known: bool = False, **spec: object) -> None:
        item = parse_model_object(samples.model(name, version=version, spec=spec, known=known))
        self.store.models.put(item)
        asyncio.run(self.inspection.ensure(item))

    def pods(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.api.objects if "/pods/" in path]

    def pod(self, name: str = "tiny") -> dict[str, object]:
        return self.api.objects[f"{paths.pods('lab')}/model-{name}-info"]

    def hear(self, status: Mapping[str, object], name: str = "tiny", *, kind: str = "MODIFIED") -> None:
        """The pod as the watch tells of it, with this status."""
        self.api.version += 1
        raw = dict(self.pod(name))
        metadata = {**mapping(raw, "metadata"), "resourceVersion": str(self.api.version)}
        self.api.objects[f"{paths.pods('lab')}/model-{name}-info"] = {**raw, "metadata": metadata, "status": status}
        self.store.heard_pod(self.pod(name), kind=kind)

    def _wake(self, key: str, delay: float) -> None:
        if delay == 0:
            self.woken.append(key)


def succeeded(message: str) -> dict[str, object]:
    return {
        "phase": "Succeeded",
        "containerStatuses": [_container({"terminated": {"exitCode": 0, "message": message}})],
    }


def crashed(message: str) -> dict[str, object]:
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    return {"phase": "Running", "containerStatuses": [{**_container(waiting), "lastState": ended}]}


def _container(state: Mapping[str, object]) -> dict[str, object]:
    return {"name": "inspector", "restartCount": 0, "state": state}


def parsed(status: Mapping[str, object]) -> Json:
    item: ModelObject = parse_model_object(samples.model())
    assert item.model is not None
    pod = inspector_pod(item.model, defaults=RunnerDefaults())
    return {**pod, "status": status}


def test_unknown_weights_get_one_pod_that_reads_them() -> None:
    bench = Bench()
    bench.ensure()
    bench.ensure()
    assert bench.pods() == ["model-tiny-info"]


def test_known_weights_get_none() -> None:
    bench = Bench()
    bench.ensure(known=True)
    assert bench.pods() == []


def test_the_pod_is_the_models_own_may_do_as_little_as_a_runner_and_is_not_taken_for_one() -> None:
    bench = Bench()
    bench.ensure(source="pvc://claim/a.gguf", pod={"nodeSelector": {"disk": "fast"}, "labels": {"team": "red"}})
    pod = bench.pod()
    assert text(objects(dig(pod, "metadata"), "ownerReferences")[0], "uid") == "uid-tiny"
    assert dig(pod, "metadata", "labels", "app.kubernetes.io/name") == "corral-inspector"
    assert dig(pod, "metadata", "labels", "corral.dev/model") == "tiny"
    spec = mapping(pod, "spec")
    assert (spec["restartPolicy"], spec["nodeSelector"]) == ("OnFailure", {"disk": "fast"})
    assert spec["automountServiceAccountToken"] is False
    container = objects(spec, "containers")[0]
    assert dig(container, "securityContext", "readOnlyRootFilesystem") is True
    assert {"name": "weights", "mountPath": "/weights", "readOnly": True} in objects(container, "volumeMounts")


def test_the_facts_count_before_the_status_has_them_and_the_pod_stays_until_then() -> None:
    bench = Bench()
    bench.ensure()
    bench.hear(succeeded(pack(samples.FACTS)))
    assert bench.store.facts("lab/tiny") == samples.FACTS
    bench.ensure()
    assert bench.pods() == ["model-tiny-info"]
    bench.ensure(version=11, known=True)
    assert bench.pods() == []


def test_an_operator_that_was_away_takes_over_what_was_told_meanwhile() -> None:
    bench = Bench()
    bench.ensure()
    bench.hear(succeeded(pack(samples.FACTS)))
    told = bench.pod()
    bench.start()
    bench.store.heard_pod(told, kind="MODIFIED")
    bench.ensure()
    assert bench.store.facts("lab/tiny") == samples.FACTS
    assert bench.pods() == ["model-tiny-info"]


def test_an_edited_source_is_read_anew() -> None:
    bench = Bench()
    bench.ensure(known=True)
    bench.ensure(version=11, known=True, source="file:///other.gguf")
    assert bench.store.facts("lab/tiny") is None
    assert bench.pods() == ["model-tiny-info"]


def test_an_edit_while_the_weights_are_read_wants_another_pod() -> None:
    bench = Bench()
    bench.ensure()
    first = bench.pod()
    bench.ensure(version=11, source="file:///other.gguf")
    assert bench.pods() == []
    bench.store.heard_pod(first, kind=DELETED)
    bench.ensure(version=12, source="file:///other.gguf")
    assert "other.gguf" in str(bench.pod())


def test_facts_of_another_source_are_not_the_models() -> None:
    bench = Bench()
    bench.ensure(source="file:///other.gguf")
    bench.hear(succeeded(pack(samples.FACTS)))
    assert bench.store.facts("lab/tiny") is None


def test_no_more_than_the_limit_read_side_by_side_and_the_next_one_has_its_turn() -> None:
    bench = Bench(limit=2)
    for name in ("a", "b", "c"):
        bench.ensure(name)
    assert bench.pods() == ["model-a-info", "model-b-info"]
    assert bench.woken == []
    bench.hear(succeeded(pack(samples.FACTS)), "a")
    bench.ensure("a")
    assert bench.woken == ["lab/c"]


def test_one_that_is_stuck_keeps_nobody_waiting() -> None:
    bench = Bench(limit=1)
    bench.ensure("a")
    bench.hear(crashed("there is no file"), "a")
    bench.ensure("b")
    assert bench.pods() == ["model-a-info", "model-b-info"]


def test_one_that_says_nothing_keeps_the_others_waiting_for_a_while_only() -> None:
    bench = Bench(limit=1)
    bench.ensure("a")
    bench.hear({"phase": "Pending"}, "a")
    bench.ensure("b")
    assert bench.pods() == ["model-a-info"]
    bench.now += PATIENCE + 1
    bench.ensure("b")
    assert bench.pods() == ["model-a-info", "model-b-info"]


def test_a_pod_that_its_node_lost_is_made_anew() -> None:
    bench = Bench()
    bench.ensure()
    bench.hear({"phase": "Failed", "reason": "Evicted"})
    lost = bench.pod()
    bench.ensure()
    assert bench.pods() == []
    bench.store.heard_pod(lost, kind=DELETED)
    bench.ensure()
    assert bench.pods() == ["model-tiny-info"]


def test_what_is_wrong_with_the_weights_is_told_at_the_first_failure_and_while_it_is_tried_again() -> None:
    failed = parse_inspector(parsed(crashed("there is no file /weights/a.gguf")))
    again = crashed("there is no file /weights/a.gguf")
    trying = {**objects(again, "containerStatuses")[0], "state": {"running": {}}}
    for inspector in (failed, parse_inspector(parsed({"phase": "Running", "containerStatuses": [trying]}))):
        assert inspector.trouble is not None
        assert (inspector.trouble.reason, inspector.trouble.phase) == ("WeightsUnreadable", "Failed")
        assert "there is no file /weights/a.gguf" in inspector.trouble.message


def test_an_image_that_cannot_be_pulled_is_the_reason() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    trouble = parse_inspector(parsed({"phase": "Pending", "containerStatuses": [_container(waiting)]})).trouble
    assert trouble is not None
    assert (trouble.reason, trouble.message, trouble.phase) == ("ImagePullBackOff", "no such image", "Failed")


def test_words_that_are_no_facts_are_a_failure() -> None:
    trouble = parse_inspector(parsed(succeeded("hello"))).trouble
    assert trouble is not None
    assert trouble.phase == "Failed"


def test_the_planner_starts_nothing_before_the_weights_are_known() -> None:
    bench = Bench()
    bench.ensure()
    (state,) = bench.store.snapshot(Policy(), NOW, lambda key: False).models
    assert "is to be read" in str(state.refused) or "is being read" in str(state.refused)
    bench.ensure(version=11, known=True)
    (state,) = bench.store.snapshot(Policy(), NOW, lambda key: False).models
    assert state.refused is None


def test_an_inspector_that_the_api_server_refuses_is_told_on_the_model_and_tried_again() -> None:
    bench = Bench()
    bench.api.failures = [Forbidden('pods "m" is forbidden: no PriorityClass with name fast was found')]
    bench.ensure()
    assert bench.pods() == []
    refusal = bench.store.refusals["lab/tiny"]
    assert (refusal.reason, refusal.phase) == ("PodRefused", "Failed")
    item = bench.store.models.get("lab/tiny")
    assert item is not None
    status = status_of(View(item=item, decision=Decision(0, "idle"), refusal=refusal), NOW)
    assert status["phase"] == "Failed"
    assert "PriorityClass with name fast" in text(objects(status, "conditions")[-1], "message")
    bench.ensure()
    assert bench.pods() == ["model-tiny-info"]
    assert bench.store.refusals == {}
