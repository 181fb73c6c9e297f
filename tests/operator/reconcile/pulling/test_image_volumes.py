"""Image volumes of runners, and the pull that they replace."""

from __future__ import annotations

from collections.abc import Mapping

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str, get_value
from corral_core.model.resource import parse_model
from corral_operator.config import HostCredentials, PullerDefaults, RunnerDefaults
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import parse_model_object
from corral_operator.observe.pulling.image_volumes import mountable_image
from corral_operator.reconcile.manifests import deployment
from corral_operator.reconcile.pulling.pulls import Pulls
from tests.operator import pull_samples, samples
from tests.operator.fake_kube import FakeKube


def variables(spec: JsonObject) -> dict[str, object]:
    return {get_str(item, "name"): item.get("value") for item in get_objects(get_objects(spec, "containers")[0], "env")}


def image_deployment(spec: Mapping[str, object], defaults: PullerDefaults | None = None) -> JsonObject:
    own = parse_model(pull_samples.image_model(spec=spec))
    image = mountable_image(own, pull_samples.IMAGE)
    runner = RunnerDefaults(puller=defaults or PullerDefaults())
    return deployment(own, 1, defaults=runner, source=pull_samples.IMAGE, image=image)


def test_runners_mount_an_image_in_place_of_a_claim() -> None:
    manifest = image_deployment({})
    spec = get_object(manifest, "spec", "template", "spec")
    reference = f"registry.example:5000/team/model@{pull_samples.IMAGE_PIN}"
    assert {"name": "weights", "image": {"reference": reference, "pullPolicy": "IfNotPresent"}} in get_objects(
        spec, "volumes"
    )
    mounts = get_objects(get_objects(spec, "containers")[0], "volumeMounts")
    assert {"name": "weights", "mountPath": "/weights", "readOnly": True} in mounts
    assert variables(spec)["CORRAL_IMAGE_PATH"] == "models/m.gguf"
    assert not {"CORRAL_STORE", "CORRAL_SNAPSHOTS"} & variables(spec).keys()
    assert "persistentVolumeClaim" not in str(spec)
    assert get_value(manifest, "spec", "strategy", "type") == "RollingUpdate", "an image is on every node"


def test_the_kubelet_pulls_an_image_with_the_secret_of_the_source() -> None:
    def secrets(**spec: object) -> object:
        return get_value(image_deployment(spec), "spec", "template", "spec", "imagePullSecrets")

    assert secrets() is None
    assert secrets(sourceSecretRef={"name": "hub"}) == [{"name": "hub"}]
    pod = {"imagePullSecrets": [{"name": "runner"}, {"name": "hub"}]}
    assert secrets(sourceSecretRef={"name": "hub"}, pod=pod) == pod["imagePullSecrets"]
    assert secrets(sourceSecretRef={"name": "more"}, pod=pod) == [*pod["imagePullSecrets"], {"name": "more"}]


def test_the_kubelet_pulls_an_image_with_the_installations_secret_for_the_host() -> None:
    defaults = PullerDefaults(credentials=(HostCredentials("registry.example:5000", "team"),))
    found = image_deployment({}, defaults)
    assert get_value(found, "spec", "template", "spec", "imagePullSecrets") == [{"name": "team"}]


async def test_an_image_that_runners_mount_needs_neither_claim_nor_puller(kube: FakeKube) -> None:
    state = ClusterState()
    pulls = Pulls(kube, state, RunnerDefaults(), requeue=lambda _key, _delay: None)
    raw = pull_samples.image_model()
    state.apply(Kind.MODELS, raw)
    await pulls.reconcile(parse_model_object(raw), wanted=True)
    puller = api_paths.pods("lab", "model-tiny-pull")
    assert puller in kube.objects, "no node is known that can mount it"

    state.replace(Kind.NODES, [{**samples.node("a"), "status": {"nodeInfo": pull_samples.NODE_INFO}}], "1")
    state.replace(Kind.OTHER_PODS, [], "1")
    await pulls.reconcile(parse_model_object(raw), wanted=True)
    assert puller not in kube.objects
    claim = api_paths.claims("lab", "model-tiny")
    del kube.objects[claim]
    await pulls.reconcile(parse_model_object(raw), wanted=True)
    assert claim not in kube.objects
