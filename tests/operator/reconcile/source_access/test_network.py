"""Network of the containers that reach sources: what they get, and what runners do not get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str, get_value
from corral_core.model.model import Model
from corral_core.model.resource import parse_model
from corral_operator.config import HostCredentials, PullerDefaults, RunnerDefaults
from corral_operator.reconcile.inspector_pod import inspector_digest, inspector_pod
from corral_operator.reconcile.manifests import deployment
from corral_operator.reconcile.pulling.puller_pod import puller_pod
from tests.operator import pull_samples, samples

INSTALLATION = PullerDefaults(
    https_proxy="http://proxy.example:3128",
    no_proxy=".example.com",
    ca_config_map="authorities",
    env=({"name": "HF_ENDPOINT", "value": "https://hub.example"},),
)


def model(**spec: object) -> Model:
    return parse_model(pull_samples.model(spec=spec))


def pod(of: Model, defaults: PullerDefaults = INSTALLATION, ranges: Sequence[str] = ()) -> JsonObject:
    return puller_pod(of, pull_samples.RESOLVED, defaults=RunnerDefaults(puller=defaults), ranges=ranges)


def variables(raw: JsonObject) -> Mapping[str, object]:
    spec = get_object(raw, "spec", "template", "spec") or get_object(raw, "spec")
    found = get_objects(get_objects(spec, "containers")[0], "env")
    return {get_str(item, "name"): item.get("value", item.get("valueFrom")) for item in found}


def volumes(raw: JsonObject) -> Mapping[str, JsonObject]:
    return {get_str(item, "name"): item for item in get_objects(raw, "spec", "volumes")}


def test_pullers_have_the_settings_of_the_installation() -> None:
    found = variables(pod(model(), ranges=["10.0.0.0/8"]))
    assert found["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert found["NO_PROXY"] == "localhost,127.0.0.0/8,::1,.svc,.cluster.local,10.0.0.0/8,.example.com"
    assert found["CORRAL_CA_BUNDLE"] == "/etc/corral/ca/ca.crt"
    assert found["HF_ENDPOINT"] == "https://hub.example"
    assert get_value(volumes(pod(model()))["ca"], "configMap", "name") == "authorities"


def test_a_model_replaces_them_field_by_field() -> None:
    proxy = {
        "httpsProxySecretRef": {"name": "proxy", "key": "url"},
        "noProxy": "",
        "caBundle": {"secretName": "own", "key": "bundle.pem"},
    }
    found = pod(model(proxy=proxy))
    assert variables(found)["HTTPS_PROXY"] == {"secretKeyRef": {"name": "proxy", "key": "url"}}
    assert variables(found)["NO_PROXY"] == "localhost,127.0.0.0/8,::1,.svc,.cluster.local"
    assert variables(found)["CORRAL_CA_BUNDLE"] == "/etc/corral/ca/bundle.pem"
    assert get_value(volumes(found)["ca"], "secret", "secretName") == "own"


def test_the_password_of_the_installations_proxy_stays_in_its_secret() -> None:
    found = variables(pod(model(), PullerDefaults(https_proxy_secret=("proxy", "url"))))
    assert found["HTTPS_PROXY"] == {"secretKeyRef": {"name": "proxy", "key": "url"}}


def test_the_secret_of_the_source_is_mounted_and_not_in_the_environment() -> None:
    found = pod(model(sourceSecretRef={"name": "hub"}))
    assert variables(found)["CORRAL_SOURCE_SECRET"] == "/etc/corral/source"
    assert get_value(volumes(found)["source"], "secret", "secretName") == "hub"
    mounts = get_objects(get_objects(found, "spec", "containers")[0], "volumeMounts")
    assert {"name": "source", "mountPath": "/etc/corral/source", "readOnly": True} in mounts


def test_runners_have_no_proxy_no_authorities_and_no_secret() -> None:
    own = model(sourceSecretRef={"name": "hub"}, proxy={"httpsProxy": "http://proxy.example:3128"})
    text = str(deployment(own, 1, defaults=RunnerDefaults(puller=INSTALLATION), source=pull_samples.RESOLVED))
    for name in ("PROXY", "hub", "authorities", "CORRAL_CA_BUNDLE", "HF_ENDPOINT"):
        assert name not in text.replace("organization/model", ""), name


def test_runners_mount_the_claim_read_only_and_find_their_snapshots() -> None:
    manifest = deployment(model(), 1, defaults=RunnerDefaults(), source=pull_samples.RESOLVED)
    spec = get_object(manifest, "spec", "template", "spec")
    claim = {"claimName": "model-tiny", "readOnly": True}
    assert {"name": "store", "persistentVolumeClaim": claim} in get_objects(spec, "volumes")
    mounts = get_objects(get_objects(spec, "containers")[0], "volumeMounts")
    assert {"name": "store", "mountPath": "/store", "readOnly": True} in mounts
    found = variables(manifest)
    assert found["CORRAL_STORE"] == "/store"
    assert pull_samples.SNAPSHOT in str(found["CORRAL_SNAPSHOTS"])


def test_a_runner_of_a_claim_for_one_node_ends_before_the_next_one_starts() -> None:
    def strategy(**spec: object) -> object:
        return get_value(deployment(model(**spec), 1, defaults=RunnerDefaults()), "spec", "strategy", "type")

    assert strategy() == "Recreate"
    assert strategy(cache={"accessModes": ["ReadWriteMany"]}) == "RollingUpdate"
    assert strategy(cache={"type": "shared", "claimName": "weights"}) == "RollingUpdate"


def test_a_resolver_has_the_network_of_a_puller_and_a_label_of_its_own() -> None:
    own = model(sourceSecretRef={"name": "hub"}, system="secret words")
    defaults = RunnerDefaults(puller=INSTALLATION)
    found = inspector_pod(own, defaults=defaults, remote=True, pins={"hf://a/b": "1"}, ranges=["10.0.0.0/8"])
    assert get_value(found, "metadata", "labels", "app.kubernetes.io/name") == "corral-resolver"
    assert variables(found)["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert variables(found)["CORRAL_PINS"] == '{"hf://a/b": "1"}'
    assert "secret words" not in str(found), "it depends on the sources alone"
    assert get_value(found, "metadata", "annotations", "corral.dev/inspects") == inspector_digest(
        own, defaults=defaults, remote=True
    )


def test_an_inspector_of_local_sources_has_no_network() -> None:
    local = parse_model(samples.model())
    found = inspector_pod(local, defaults=RunnerDefaults(puller=INSTALLATION))
    assert get_value(found, "metadata", "labels", "app.kubernetes.io/name") == "corral-inspector"
    assert "PROXY" not in str(found)


def test_the_ranges_of_the_cluster_do_not_identify_a_pod() -> None:
    def digest(ranges: Sequence[str]) -> object:
        return get_value(pod(model(), ranges=ranges), "metadata", "annotations", "corral.dev/pulls")

    assert digest([]) == digest(["10.0.0.0/8"])


def test_a_model_with_its_own_proxy_or_authorities_does_not_get_the_installations_credentials() -> None:
    reference = {"secretKeyRef": {"name": "hub", "key": "value"}}
    env = (
        {"name": "HF_ENDPOINT", "value": "https://hub.example"},
        {"name": "HF_TOKEN", "value": "hf_secret"},
        {"name": "AWS_ACCESS_KEY_ID", "value": "id"},
        {"name": "GOOGLE_SERVICE_ACCOUNT_KEY", "value": "{}"},
        {"name": "MIRROR", "valueFrom": reference},
    )
    names = {str(item["name"]) for item in env}
    defaults = PullerDefaults(env=env)
    assert names <= variables(pod(model(), defaults)).keys()
    assert names <= variables(pod(model(proxy={"noProxy": ".example"}), defaults)).keys()
    for proxy in (
        {"httpsProxy": "http://own.example:3128"},
        {"httpsProxySecretRef": {"name": "own", "key": "url"}},
        {"caBundle": {"configMapName": "own"}},
    ):
        runner = RunnerDefaults(puller=defaults)
        resolver = inspector_pod(model(proxy=proxy), defaults=runner, remote=True)
        for each in (pod(model(proxy=proxy), defaults), resolver):
            assert names & variables(each).keys() == {"HF_ENDPOINT"}


BY_HOST = PullerDefaults(
    credentials=(HostCredentials("huggingface.co", "hub"), HostCredentials("*.example.com", "files"))
)


def test_the_secret_of_the_host_is_optional_and_given_to_resolvers_and_pullers() -> None:
    secret = {"secretName": "hub", "defaultMode": 0o440, "optional": True}
    resolver = inspector_pod(model(), defaults=RunnerDefaults(puller=BY_HOST), remote=True)
    for each in (pod(model(), BY_HOST), resolver):
        assert volumes(each)["source"] == {"name": "source", "secret": secret}
        assert variables(each)["CORRAL_DEFAULT_SECRET"] == "/etc/corral/source"
        assert "CORRAL_SOURCE_SECRET" not in variables(each)
    assert "hub" not in str(deployment(model(), 1, defaults=RunnerDefaults(puller=BY_HOST), source=None))


@pytest.mark.parametrize(
    "spec",
    [
        {"source": "ollama://tiny"},
        {"proxy": {"httpsProxy": "http://own.example:3128"}},
        {"proxy": {"caBundle": {"configMapName": "own"}}},
        {"adapters": [{"name": "tuned", "source": "https://evil.net/lora.gguf"}]},
        {"adapters": [{"name": "tuned", "source": "https://files.example.com/lora.gguf"}]},
    ],
)
def test_the_secret_of_a_host_is_for_its_sources_alone_and_not_for_a_proxy_of_the_model(
    spec: dict[str, object],
) -> None:
    found = pod(model(**spec), BY_HOST)
    assert "source" not in volumes(found)
    assert "CORRAL_DEFAULT_SECRET" not in variables(found)


def test_the_secret_of_the_model_replaces_that_of_the_host() -> None:
    found = pod(model(sourceSecretRef={"name": "own"}), BY_HOST)
    assert get_value(volumes(found)["source"], "secret", "secretName") == "own"
    assert "CORRAL_DEFAULT_SECRET" not in variables(found)
