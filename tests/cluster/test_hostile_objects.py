"""Objects that a tenant may write stop neither the operator nor a gateway.

The schema of Models bounds their depth. ``metadata.managedFields`` of any object stays free-form: the API server stores
what a client sends, at any depth.
"""

from __future__ import annotations

import json

import pytest

from tests.cluster.api import MODELS, ApiError, at
from tests.cluster.cluster import Cluster
from tests.cluster.installation import START_TIMEOUT, Installation
from tests.core.model_cases import SOURCE, nested
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

DEPTH = 2_000
"""Levels; Python's JSON reader fails at about 1,000."""


def deep_text(key: str) -> str:
    return f'{{"{key}":' * DEPTH + "{}" + "}" * DEPTH


def with_deep_fields(kind: str, api: str, name: str, rest: str) -> str:
    """Return the JSON of an object whose managed fields are nested deep."""
    entry = {"manager": "m", "operation": "Update", "apiVersion": api, "time": "2026-01-01T00:00:00Z"}
    fields = json.dumps([{**entry, "fieldsType": "FieldsV1", "fieldsV1": "DEEP"}])
    labels = '"labels":{"corral.dev/model":"good"}'
    metadata = f'"metadata":{{"name":"{name}",{labels},"managedFields":{fields}}}'.replace('"DEEP"', deep_text("f:a"))
    return f'{{"apiVersion":"{api}","kind":"{kind}",{metadata},{rest}}}'


def post(cluster: Cluster, path: str, body: str) -> None:
    """Post the JSON; the response is not decoded."""
    cluster.kubectl("create", "--raw", path, "-f", "-", input=body)


def post_deep_objects(cluster: Cluster, namespace: str, suffix: str) -> None:
    models, slices, services = (
        f"{MODELS}/namespaces/{namespace}/models",
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        f"/api/v1/namespaces/{namespace}/services",
    )
    spec = f'"spec":{{"source":"{SOURCE}"}}'
    post(cluster, models, with_deep_fields("Model", "corral.dev/v1alpha1", f"deep{suffix}", spec))
    rest = '"addressType":"IPv4","endpoints":[],"ports":[]'
    post(cluster, slices, with_deep_fields("EndpointSlice", "discovery.k8s.io/v1", f"deep{suffix}", rest))
    rest = '"spec":{"ports":[{"port":1}]}'
    post(cluster, services, with_deep_fields("Service", "v1", f"deep{suffix}", rest))


def test_the_schema_drops_what_is_nested_deep(cluster: Cluster, namespace: str) -> None:
    path = f"{MODELS}/namespaces/{namespace}/models"
    pod = f'{{"affinity":{deep_text("a")},"env":[{{"name":"A","valueFrom":{deep_text("a")}}}]}}'
    spec = f'"metadata":{{"name":"m"}},"spec":{{"source":"{SOURCE}","pod":{pod}}}'
    body = f'{{"apiVersion":"corral.dev/v1alpha1","kind":"Model",{spec}}}'
    post(cluster, path, body)
    stored = cluster.api.get(f"{path}/m")
    assert at(stored, "spec", "pod") == {"affinity": {}, "env": [{"name": "A", "valueFrom": {}}]}


def test_the_metadata_of_a_model_holds_scalars(cluster: Cluster, namespace: str) -> None:
    path = f"{MODELS}/namespaces/{namespace}/models"
    metadata = {"name": "m"}
    cluster.api.create(
        path, {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": {"source": SOURCE}}
    )
    with pytest.raises(ApiError, match=r"status.model.info.a: Too many|must have at most 0"):
        cluster.api.patch(f"{path}/m/status", {"status": {"model": {"info": {"a": nested(3)}}}})
    with pytest.raises(ApiError, match="at most 0 items"):
        cluster.api.patch(f"{path}/m/status", {"status": {"model": {"info": {"a": [[[]]]}}}})


def test_objects_that_are_nested_deep_stop_neither_operator_nor_gateway(
    cluster: Cluster, namespace: str, corral: Installation
) -> None:
    operator, gateway = corral.start_operator(), corral.start_gateway()
    corral.add("good")
    corral.wait_phase("good", "Idle")
    post_deep_objects(cluster, namespace, "-watched")
    until(
        lambda: all("object_unreadable" in child.tail(400) for child in (operator, gateway.child)),
        START_TIMEOUT,
        what="both processes report the object",
    )
    assert corral.send(gateway, "good").result(START_TIMEOUT).done is not None
    for child in (operator, gateway.child):
        assert child.alive
        child.kill()
    post_deep_objects(cluster, namespace, "-listed")
    operator, gateway = corral.start_operator("operator-2"), corral.start_gateway("gateway-2")
    assert corral.send(gateway, "good").result(START_TIMEOUT).done is not None
    corral.add("later")
    corral.wait_phase("later", "Idle")
    assert operator.alive
    assert gateway.child.alive


def test_any_character_of_a_system_prompt_reaches_the_deployment(cluster: Cluster, corral: Installation) -> None:
    """The body of a server-side apply is YAML, whose readers reject escapes that are valid in JSON."""
    corral.start_operator()
    prompt = "You are a \U0001f999.\x85\u2028 C:\\ud83d"
    corral.add("llama", system=prompt)
    corral.wait_replicas("llama", 0)
    container = at(corral.deployment("llama"), "spec", "template", "spec", "containers")
    assert isinstance(container, list)
    variables = {one["name"]: one.get("value") for one in container[0]["env"]}
    assert json.loads(variables["CORRAL_MODEL"])["spec"]["system"] == prompt
