"""Store of pulled weights in the pods of a Model, and the init container of those that pull them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str, get_value
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.model import Model
from corral_core.model.resource import parse_model
from corral_operator.config import PullerDefaults, RunnerDefaults
from corral_operator.reconcile.manifests import deployment
from corral_operator.reconcile.pulling.puller_pod import puller_pod
from corral_operator.reconcile.runner_pod import pod_spec
from tests.operator import pull_samples

INSTALLATION = PullerDefaults(
    https_proxy="http://proxy.example:3128",
    ca_config_map="authorities",
    env=({"name": "HF_TOKEN", "value": "hf_installation"},),
)
DEFAULTS = RunnerDefaults(puller=INSTALLATION)


def model(*, cache: dict[str, object] | None = None, **spec: object) -> Model:
    return parse_model(pull_samples.model(spec={"cache": {"type": "ephemeral", **(cache or {})}, **spec}))


def pod(of: Model, source: SourceResolution = pull_samples.RESOLVED, *, ranges: tuple[str, ...] = ()) -> JsonObject:
    return pod_spec(of, None, defaults=DEFAULTS, source=source, ranges=ranges)


def puller(of: Model, source: SourceResolution = pull_samples.RESOLVED) -> JsonObject:
    (container,) = get_objects(pod(of, source), "initContainers")
    return container


def runner(of: Model, source: SourceResolution = pull_samples.RESOLVED) -> JsonObject:
    (container,) = get_objects(pod(of, source), "containers")
    return container


def variables(container: JsonObject) -> dict[str, object]:
    return {get_str(item, "name"): item.get("value", item.get("valueFrom")) for item in get_objects(container, "env")}


def volumes(spec: JsonObject) -> dict[str, JsonObject]:
    return {get_str(item, "name"): item for item in get_objects(spec, "volumes")}


def mounts(container: JsonObject) -> dict[str, JsonObject]:
    return {get_str(item, "name"): item for item in get_objects(container, "volumeMounts")}


def test_the_init_container_does_what_a_puller_pod_does() -> None:
    proxy = {"httpsProxySecretRef": {"name": "proxy", "key": "url"}, "caBundle": {"secretName": "own"}}
    fields: dict[str, Any] = {"proxy": proxy, "sourceSecretRef": {"name": "hub"}}
    claimed = parse_model(pull_samples.model(spec=fields))
    (expected,) = get_objects(puller_pod(claimed, pull_samples.RESOLVED, defaults=DEFAULTS), "spec", "containers")
    found = puller(model(**fields))
    limit = variables(found)["CORRAL_STORE_LIMIT"]
    assert variables(found) == {**variables(expected), "CORRAL_STORE_LIMIT": limit}
    for name in ("command", "image", "securityContext", "volumeMounts", "terminationMessagePolicy", "resources"):
        assert found[name] == expected[name], name


def test_only_the_init_container_has_the_secrets_and_settings_of_the_network() -> None:
    found = pod(model(sourceSecretRef={"name": "hub"}), ranges=("10.0.0.0/8",))
    (init,) = get_objects(found, "initContainers")
    assert variables(init)["HF_TOKEN"] == "hf_installation"
    assert "10.0.0.0/8" in str(variables(init)["NO_PROXY"])
    assert {"ca", "source", "store"} <= mounts(init).keys()
    (container,) = get_objects(found, "containers")
    text = str(container).replace(pull_samples.SOURCE, "")
    for name in ("PROXY", "hub", "authorities", "CORRAL_CA_BUNDLE", "hf_installation", "/etc/corral"):
        assert name not in text, name
    assert mounts(container).keys() == {"tmp", "store"}


def test_the_runner_mounts_the_volume_read_only_and_finds_its_snapshots() -> None:
    container = runner(model())
    assert mounts(container)["store"] == {"name": "store", "mountPath": "/store", "readOnly": True}
    assert "readOnly" not in mounts(puller(model()))["store"]
    assert pull_samples.SNAPSHOT in str(variables(container)["CORRAL_SNAPSHOTS"])


def test_the_volume_and_the_request_have_the_size_of_a_claim() -> None:
    assert volumes(pod(model()))["store"] == {"name": "store", "emptyDir": {"sizeLimit": "1123Mi"}}
    assert get_value(runner(model()), "resources", "requests", "ephemeral-storage") == "1123Mi"


def test_the_size_of_the_cache_is_that_of_the_volume() -> None:
    own = model(cache={"size": "5Gi"})
    assert get_value(volumes(pod(own))["store"], "emptyDir", "sizeLimit") == "5120Mi"
    assert get_value(runner(own), "resources", "requests", "ephemeral-storage") == "5120Mi"


def test_the_puller_stops_before_the_kubelet_evicts_its_pod() -> None:
    limit = int(str(variables(puller(model(cache={"size": "1Gi"})))["CORRAL_STORE_LIMIT"]))
    assert 1000 * 2**20 < limit < 1024 * 2**20


def test_a_source_of_unknown_size_gets_the_default_size() -> None:
    unknown = replace(pull_samples.RESOLVED, total=0)
    assert get_value(volumes(pod(model(), unknown))["store"], "emptyDir", "sizeLimit") == "32768Mi"


@pytest.mark.parametrize("kind", ["requests", "limits"])
def test_disk_space_that_the_model_requests_itself_is_kept(kind: str) -> None:
    own = model(pod={"resources": {kind: {"ephemeral-storage": "9Gi"}}})
    found = get_object(runner(own), "resources")
    assert get_value(found, kind, "ephemeral-storage") == "9Gi"
    assert "1123Mi" not in str(found)


def test_other_caches_take_no_disk_space_of_the_node_and_have_no_init_container() -> None:
    found = pod(parse_model(pull_samples.model()))
    assert "ephemeral-storage" not in str(found)
    assert "initContainers" not in found


def test_a_local_source_has_no_store() -> None:
    local = parse_model({**pull_samples.model(spec=pull_samples.EPHEMERAL), "spec": {"source": "pvc://claim/a.gguf"}})
    assert "initContainers" not in pod_spec(local, None, defaults=DEFAULTS)


def test_the_next_runner_pulls_while_the_present_one_serves() -> None:
    manifest = deployment(model(), 1, defaults=DEFAULTS, source=pull_samples.RESOLVED)
    assert get_value(manifest, "spec", "strategy", "rollingUpdate") == {"maxUnavailable": 0, "maxSurge": 1}
