"""Parsing of API objects."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from corral_core.base.json_fields import get_object
from corral_kube.bounded_json import decode
from corral_operator.observe import objects
from corral_operator.observe.objects import parse_model_object, parse_pod
from tests.operator import samples
from tests.operator.pull_samples import failed, runner


def test_an_invalid_model_keeps_its_problems() -> None:
    item = parse_model_object(samples.model(spec={"source": "nonsense", "minReplicas": -1}))
    assert item.model is None
    assert {problem.field for problem in item.problems} >= {"spec.source", "spec.minReplicas"}


def test_a_pod_belongs_to_the_model_of_its_label() -> None:
    pod = parse_pod(samples.pod("tiny", name="tiny-abc"))
    assert (pod.meta.model, pod.meta.key, pod.ip, pod.ready) == ("lab/tiny", "lab/tiny-abc", "10.1.2.3", True)


def test_a_model_that_is_nested_deep_keeps_its_status_and_says_so() -> None:
    text = json.dumps(samples.model(spec={"pod": {"affinity": "DEEP"}}))
    raw, deep = decode(text.replace('"DEEP"', '{"a":' * 1_100 + "1" + "}" * 1_100).encode())
    item = parse_model_object(get_object(raw))
    assert deep
    assert item.model is None
    assert item.metadata == samples.METADATA
    assert "at most 64 levels" in str(item.problems[0])


def test_a_defect_of_the_parser_is_a_problem_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(raw: object) -> None:
        raise OverflowError("cannot convert float infinity to integer")

    monkeypatch.setattr(objects, "parse_model", fail)
    item = parse_model_object(samples.model())
    assert item.model is None
    assert str(item.problems[0]).startswith("spec: the operator cannot read it (OverflowError: cannot convert")


@pytest.mark.parametrize(
    ("state", "pulling"),
    [({}, True), ({"running": {}}, True), (failed("Retrying: later"), True), ({"terminated": {"exitCode": 0}}, False)],
)
def test_a_pod_pulls_until_its_init_container_has_succeeded(state: Mapping[str, object], pulling: bool) -> None:
    assert parse_pod(runner(state)).pulling == pulling
    assert not parse_pod(samples.pod()).pulling


@pytest.mark.parametrize(("annotation", "amounts"), [("7", {"x/gpu:memory": 14}), ("much", {"x/gpu:unknown": 2})])
def test_a_pod_takes_the_gpu_memory_of_its_annotation(annotation: str, amounts: Mapping[str, int]) -> None:
    spec = {"nodeName": "n", "containers": [{"resources": {"limits": {"x/gpu": "2"}}}]}
    raw = {"metadata": {"annotations": {"corral.dev/gpu-memory": annotation}}, "spec": spec}
    expected = {"x/gpu": 2, "pods": 1, **amounts}
    assert parse_pod(raw).requests == expected
    assert objects.parse_other_pod(objects.trim_other_pod(raw)).requests == expected


def test_pods_of_a_deployment_take_the_gpu_memory_of_its_template() -> None:
    template = {"metadata": {"annotations": {"corral.dev/gpu-memory": "7"}}, "spec": {"containers": []}}
    assert objects.parse_deployment({"spec": {"template": template}}).requirements.gpu_memory == 7
