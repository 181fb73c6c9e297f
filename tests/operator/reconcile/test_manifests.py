"""Manifests of a Model's Deployment and Service."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_value
from corral_core.base.settings import duration_setting
from corral_core.contracts.model_variable import model_text
from corral_core.model.accelerator import GPUPodSettings
from corral_core.model.model import Model
from corral_core.model.pod import TolerationSpec
from corral_core.model.resource import parse_model, runner_model
from corral_operator.config import RunnerDefaults
from corral_operator.reconcile import manifests
from corral_operator.reconcile.gpus.alternatives import requested_as_given
from corral_operator.report.load import LoadChoice
from tests.operator import samples

NODE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def model(**spec: object) -> Model:
    return parse_model(samples.model(spec=spec))


def built(model: Model, replicas: int = 0, defaults: RunnerDefaults | None = None) -> JsonObject:
    load = LoadChoice(gpus=requested_as_given(model.spec.gpu))
    return manifests.deployment(model, replicas, defaults=defaults or RunnerDefaults(), load=load)


def pod(manifest: JsonObject) -> JsonObject:
    return get_object(manifest, "spec", "template", "spec")


def environment(manifest: JsonObject) -> dict[str, object]:
    return {str(item.get("name")): item.get("value") for item in get_objects(_container(manifest), "env")}


def _container(manifest: JsonObject) -> JsonObject:
    return get_objects(pod(manifest), "containers")[0]


def test_the_deployment_belongs_to_the_model_and_has_no_finalizer() -> None:
    metadata = get_object(built(model()), "metadata")
    assert metadata["ownerReferences"] == [
        {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "name": "tiny", "uid": "uid-tiny", "controller": True}
    ]
    assert "finalizers" not in metadata


def test_the_pods_have_the_labels_of_the_selector_although_the_model_sets_them() -> None:
    manifest = built(model(pod={"labels": {"app.kubernetes.io/name": "mine", "team": "red"}}))
    selector = get_object(manifest, "spec", "selector", "matchLabels")
    labels = get_object(manifest, "spec", "template", "metadata", "labels")
    assert selector.items() <= labels.items()
    assert labels["team"] == "red"


def test_the_runner_gets_the_runner_spec() -> None:
    subject = model(system="Be kind.", keepAlive="10m")
    described = json.loads(str(environment(built(subject))["CORRAL_MODEL"]))
    assert described == runner_model(subject, gpus=0)
    assert described["spec"]["system"] == "Be kind."


def test_a_runner_starts_with_the_largest_model() -> None:
    subject = model(system="😀" * 32768, template="$" * 32768)
    given = {name: str(value).replace("$$", "$") for name, value in environment(built(subject)).items()}
    script = (
        "import os; from corral_core.contracts.model_variable import model_text; print(len(model_text(os.environ)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) == len(model_text(given))
    assert json.loads(model_text(given)) == runner_model(subject, gpus=0)


def test_a_dollar_sign_in_the_spec_is_not_expanded_by_the_kubelet() -> None:
    value = str(environment(built(model(system="pay $(HOME) or $$5")))["CORRAL_MODEL"])
    assert "pay $$(HOME) or $$$$5" in value


def test_a_variable_of_the_model_replaces_the_installations_and_occurs_once() -> None:
    defaults = RunnerDefaults(settings={"OLLAMA_CONTEXT_LENGTH": "4096"})
    manifest = built(model(pod={"env": [{"name": "OLLAMA_CONTEXT_LENGTH", "value": "8192"}]}), defaults=defaults)
    names = [item.get("name") for item in get_objects(_container(manifest), "env")]
    assert names.count("OLLAMA_CONTEXT_LENGTH") == 1
    assert environment(manifest)["OLLAMA_CONTEXT_LENGTH"] == "8192"


def test_the_pod_meets_the_restricted_pod_security_level() -> None:
    manifest = built(model())
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert get_value(pod(manifest), "securityContext") == security
    assert _container(manifest)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(manifest)["automountServiceAccountToken"] is False


def test_the_grace_period_is_longer_than_the_drain_timeout() -> None:
    spec = pod(built(model(), defaults=RunnerDefaults(drain_timeout=90.0)))
    assert spec["terminationGracePeriodSeconds"] == 100


def test_the_runner_reads_the_drain_timeout_of_the_operator() -> None:
    for drain in (0.5, 60.0, 1e7):
        value = environment(built(model(), defaults=RunnerDefaults(drain_timeout=drain)))["CORRAL_DRAIN_TIMEOUT"]
        assert duration_setting({"X": str(value)}, "X", default=0.0) == drain


def test_gpus_set_a_limit_the_nvidia_runtime_class_and_the_recreate_strategy() -> None:
    manifest = built(model(gpu={"count": 2}, pod={"resources": {"limits": {"memory": "4Gi"}}}))
    limits = get_value(_container(manifest), "resources", "limits")
    assert limits == {"memory": "4Gi", "nvidia.com/gpu": 2}
    assert pod(manifest)["runtimeClassName"] == "nvidia"
    assert get_value(manifest, "spec", "strategy") == {"type": "Recreate"}


def test_the_runner_is_not_process_1_so_that_it_receives_sigterm_from_the_start() -> None:
    assert pod(built(model()))["shareProcessNamespace"] is True


def test_gpus_of_other_vendors_need_no_runtime_class() -> None:
    manifest = built(model(gpu={"count": 1, "resource": "amd.com/gpu"}))
    assert "runtimeClassName" not in pod(manifest)


def test_without_gpus_there_is_no_runtime_class_and_the_new_runner_starts_first() -> None:
    manifest = built(model())
    assert "runtimeClassName" not in pod(manifest)
    assert get_value(manifest, "spec", "strategy", "rollingUpdate") == {"maxUnavailable": 0, "maxSurge": 1}


def test_without_capacity_for_both_the_old_runner_ends_first() -> None:
    manifest = manifests.deployment(model(), 1, defaults=RunnerDefaults(), no_surge=True)
    assert get_value(manifest, "spec", "strategy", "rollingUpdate") == {"maxUnavailable": 1, "maxSurge": 0}


def test_a_claim_is_mounted_read_only_at_the_weights_path() -> None:
    manifest = built(model(source="pvc://weights-claim/llama/model.gguf"))
    claim = {"claimName": "weights-claim", "readOnly": True}
    assert {"name": "weights", "persistentVolumeClaim": claim} in get_objects(pod(manifest), "volumes")
    mount = {"name": "weights", "mountPath": "/weights", "readOnly": True}
    assert mount in get_objects(_container(manifest), "volumeMounts")


def test_the_number_of_replicas_does_not_change_the_pods() -> None:
    none, one = built(model(), 0), built(model(), 1)
    assert get_value(none, "spec", "template") == get_value(one, "spec", "template")
    assert (get_value(none, "spec", "replicas"), get_value(one, "spec", "replicas")) == (0, 1)


def test_the_service_selects_the_runner_pods_by_the_named_port() -> None:
    service = manifests.service(model())
    assert get_value(service, "spec", "selector") == get_value(built(model()), "spec", "selector", "matchLabels")
    assert get_objects(service, "spec", "ports")[0]["targetPort"] == "http"


def test_the_model_overrides_the_installations_variables_and_priority_class() -> None:
    env = ({"name": "A", "value": "ours"}, {"name": "B", "value": "ours"})
    defaults = RunnerDefaults(priority_class="batch", env=env)
    plain = built(model(), defaults=defaults)
    assert pod(plain)["priorityClassName"] == "batch"
    own = built(model(pod={"priorityClassName": "mine", "env": [{"name": "B", "value": "own"}]}), defaults=defaults)
    assert pod(own)["priorityClassName"] == "mine"
    assert [(environment(made)["A"], environment(made)["B"]) for made in (plain, own)] == [
        ("ours", "ours"),
        ("ours", "own"),
    ]


def test_a_runner_leaves_an_unreachable_node_soon_unless_its_model_tolerates_the_taint() -> None:
    defaults = RunnerDefaults(unreachable_node_timeout=9.5)
    found = {item["key"]: item for item in get_objects(pod(built(model(), defaults=defaults)), "tolerations")}
    tolerated = {key: (item["effect"], item["tolerationSeconds"]) for key, item in found.items()}
    assert tolerated == dict.fromkeys(NODE_TAINTS, ("NoExecute", 10))
    patient = {"key": NODE_TAINTS[1], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 900}
    kept = get_objects(pod(built(model(pod={"tolerations": [patient]}), defaults=defaults)), "tolerations")
    assert [(item["key"], item["tolerationSeconds"]) for item in kept] == [(NODE_TAINTS[1], 900), (NODE_TAINTS[0], 10)]


def test_the_installations_node_labels_and_tolerations_are_extended_by_those_of_gpus_and_model() -> None:
    dedicated: TolerationSpec = {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}
    unreachable: TolerationSpec = {"key": NODE_TAINTS[1], "operator": "Exists", "effect": "NoExecute"}
    defaults = RunnerDefaults(
        node_selector={"pool": "models", "zone": "a", "disk": "slow"},
        tolerations=(dedicated, unreachable),
        gpu_pods={"nvidia": GPUPodSettings.model_validate({"nodeSelector": {"pool": "gpus", "zone": "b"}})},
    )
    made = pod(built(model(gpu={"count": 1}, pod={"nodeSelector": {"zone": "c"}}), defaults=defaults))
    assert made["nodeSelector"] == {"pool": "gpus", "zone": "c", "disk": "slow"}
    cpu = pod(built(model(gpu={"count": 0}, pod={"tolerations": [dict(dedicated)]}), defaults=defaults))
    assert cpu["nodeSelector"] == defaults.node_selector
    tolerated = get_objects(cpu, "tolerations")
    assert tolerated[:2] == [dedicated, unreachable]
    assert [item["key"] for item in tolerated[2:]] == [NODE_TAINTS[0]]


def test_temporary_files_cannot_fill_the_disk_of_the_node() -> None:
    volumes = {item["name"]: item for item in get_objects(pod(built(model())), "volumes")}
    assert volumes["tmp"]["emptyDir"] == {"sizeLimit": "2Gi"}
