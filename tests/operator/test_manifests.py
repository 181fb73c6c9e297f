"""What a Model owns, as built from the Model alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral_core.activity import FOREVER
from corral_core.estimate import estimate
from corral_core.facts import ModelFacts
from corral_core.jsonfields import Json, dig, objects
from corral_core.load import Load
from corral_core.model import Model
from corral_core.resource import parse_model, serving_spec
from corral_core.settings import duration_setting
from corral_operator import manifests
from corral_operator.config import RunnerDefaults
from corral_operator.probes import load_budget
from corral_operator.resources import sizings
from corral_operator.runner_pod import pod_spec
from tests.core.test_estimate import SMOLLM2
from tests.operator import samples


def model(**spec: object) -> Model:
    return parse_model(samples.model(spec=spec))


def built(model: Model, replicas: int = 0, defaults: RunnerDefaults | None = None) -> Json:
    return manifests.deployment(model, replicas, defaults=defaults or RunnerDefaults())


def pod(manifest: Json) -> Json:
    spec = dig(manifest, "spec", "template", "spec")
    assert isinstance(spec, dict)
    return spec


def environment(manifest: Json) -> dict[object, object]:
    return {item.get("name"): item.get("value") for item in objects(objects(pod(manifest), "containers")[0], "env")}


def test_the_deployment_belongs_to_the_model_and_needs_no_finalizer() -> None:
    metadata = dig(built(model()), "metadata")
    assert isinstance(metadata, dict)
    assert metadata["ownerReferences"] == [
        {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "name": "tiny", "uid": "uid-tiny", "controller": True}
    ]
    assert "finalizers" not in metadata


def test_the_selector_is_part_of_the_pods_labels_even_when_the_user_sets_them() -> None:
    manifest = built(model(pod={"labels": {"app.kubernetes.io/name": "mine", "team": "red"}}))
    selector = dig(manifest, "spec", "selector", "matchLabels")
    labels = dig(manifest, "spec", "template", "metadata", "labels")
    assert isinstance(selector, dict)
    assert isinstance(labels, dict)
    assert selector.items() <= labels.items()
    assert labels["team"] == "red"


def test_the_runner_gets_exactly_the_serving_spec() -> None:
    subject = model(system="Be kind.", keepAlive="10m")
    told = json.loads(str(environment(built(subject))["CORRAL_MODEL"]))
    assert told == {"name": "tiny", "namespace": "lab", "spec": serving_spec(subject)}


def test_a_dollar_in_the_spec_is_not_expanded_by_the_kubelet() -> None:
    value = str(environment(built(model(system="pay $(HOME) or $$5")))["CORRAL_MODEL"])
    assert "pay $$(HOME) or $$$$5" in value


def test_a_users_variable_replaces_ours_and_is_there_once() -> None:
    defaults = RunnerDefaults(settings={"OLLAMA_CONTEXT_LENGTH": "4096"})
    manifest = built(model(pod={"env": [{"name": "OLLAMA_CONTEXT_LENGTH", "value": "8192"}]}), defaults=defaults)
    names = [item.get("name") for item in objects(objects(pod(manifest), "containers")[0], "env")]
    assert names.count("OLLAMA_CONTEXT_LENGTH") == 1
    assert environment(manifest)["OLLAMA_CONTEXT_LENGTH"] == "8192"


def test_the_pod_meets_the_restricted_pod_security_level() -> None:
    spec = pod(built(model()))
    assert dig(spec, "securityContext") == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert objects(spec, "containers")[0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False


def test_the_pod_is_given_longer_than_the_runner_takes_to_drain() -> None:
    spec = pod(built(model(), defaults=RunnerDefaults(drain=90.0)))
    assert spec["terminationGracePeriodSeconds"] == 100


def test_the_runner_reads_the_drain_that_the_operator_was_given() -> None:
    for drain in (0.5, 60.0, 1e7):
        value = environment(built(model(), defaults=RunnerDefaults(drain=drain)))["CORRAL_DRAIN_TIMEOUT"]
        assert duration_setting({"X": str(value)}, "X", default=0.0) == drain


def test_gpus_become_a_limit_the_nvidia_runtime_class_and_a_change_without_a_second_gpu() -> None:
    manifest = built(model(gpu={"count": 2}, pod={"resources": {"limits": {"memory": "4Gi"}}}))
    assert dig(objects(pod(manifest), "containers")[0], "resources", "limits") == {"memory": "4Gi", "nvidia.com/gpu": 2}
    assert pod(manifest)["runtimeClassName"] == "nvidia"
    assert dig(manifest, "spec", "strategy") == {"type": "Recreate"}


def test_the_runner_is_no_process_1_and_so_hears_sigterm_from_the_start() -> None:
    assert pod(built(model()))["shareProcessNamespace"] is True


def test_gpus_of_another_vendor_get_no_runtime_class() -> None:
    manifest = built(model(gpu={"count": 1, "resource": "amd.com/gpu"}))
    assert "runtimeClassName" not in pod(manifest)


def test_without_gpus_there_is_no_runtime_class_and_the_new_runner_comes_first() -> None:
    manifest = built(model())
    assert "runtimeClassName" not in pod(manifest)
    assert dig(manifest, "spec", "strategy", "rollingUpdate") == {"maxUnavailable": 0, "maxSurge": 1}


def test_a_claim_is_mounted_read_only_where_the_runner_looks_for_it() -> None:
    spec = pod(built(model(source="pvc://weights-claim/llama/model.gguf")))
    assert {"name": "weights", "persistentVolumeClaim": {"claimName": "weights-claim", "readOnly": True}} in objects(
        spec, "volumes"
    )
    mounts = objects(objects(spec, "containers")[0], "volumeMounts")
    assert {"name": "weights", "mountPath": str(Path("/weights")), "readOnly": True} in mounts


def test_replicas_change_nothing_but_the_number() -> None:
    one, two = dict(built(model(), 0)), dict(built(model(), 1))
    assert dig(one, "spec", "template") == dig(two, "spec", "template")
    assert (dig(one, "spec", "replicas"), dig(two, "spec", "replicas")) == (0, 1)


def test_the_service_selects_the_runner_pods_by_the_named_port() -> None:
    service = manifests.service(model())
    assert dig(service, "spec", "selector") == dig(built(model()), "spec", "selector", "matchLabels")
    assert objects(dig(service, "spec"), "ports")[0]["targetPort"] == "http"


def test_the_installations_variables_and_priority_hold_unless_the_model_says_otherwise() -> None:
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


def test_a_runner_leaves_a_lost_node_soon_unless_its_model_tolerates_that_itself() -> None:
    defaults = RunnerDefaults(lost_node=9.5)
    lost = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    found = {item["key"]: item for item in objects(pod(built(model(), defaults=defaults)), "tolerations")}
    assert {key: (item["effect"], item["tolerationSeconds"]) for key, item in found.items()} == dict.fromkeys(
        lost, ("NoExecute", 10)
    )
    patient = {"key": lost[1], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 900}
    kept = objects(pod(built(model(pod={"tolerations": [patient]}), defaults=defaults)), "tolerations")
    assert [(item["key"], item["tolerationSeconds"]) for item in kept] == [(lost[1], 900), (lost[0], 10)]


def test_where_there_is_no_room_for_both_the_old_runner_goes_first() -> None:
    manifest = manifests.deployment(model(), 1, defaults=RunnerDefaults(), cramped=True)
    assert dig(manifest, "spec", "strategy", "rollingUpdate") == {"maxUnavailable": 1, "maxSurge": 0}


FACTS = ModelFacts(
    size=98_000_000,
    family="llama",
    families=("llama",),
    parameter_size="135M",
    parameter_count=135,
    quantization_level="Q4_1",
    context_length=8192,
    embedding_length=576,
    capabilities=("completion",),
    template="",
    shape=SMOLLM2,
)


def container(subject: Model, *, defaults: RunnerDefaults | None = None, facts: ModelFacts = FACTS) -> Json:
    defaults = defaults or RunnerDefaults()
    made = sizings(subject, facts, defaults)[0]
    return objects(pod_spec(subject, facts.size, made, defaults=defaults), "containers")[0]


def mebibytes(load: Load) -> str:
    return f"{estimate(SMOLLM2, load).total >> 20}Mi"


def test_a_runner_asks_for_the_memory_of_the_estimate_and_may_take_no_more() -> None:
    asked = container(model())["resources"]
    assert asked == {"requests": {"cpu": "250m", "memory": "596Mi"}, "limits": {"memory": "596Mi"}}


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({"requests": {"memory": "1Gi"}}, {"cpu": "250m", "memory": "1Gi"}, {"memory": "1Gi"}),
        ({"requests": {"memory": "100Mi"}}, {"cpu": "250m", "memory": "100Mi"}, {"memory": "596Mi"}),
        ({"limits": {"memory": "1Gi"}}, {"cpu": "250m"}, {"memory": "1Gi"}),
        ({"requests": {"cpu": 2}}, {"cpu": 2, "memory": "596Mi"}, {"memory": "596Mi"}),
        ({"limits": {"cpu": "100m"}}, {"memory": "596Mi"}, {"cpu": "100m", "memory": "596Mi"}),
        ({"limits": {"example.com/x": 1}}, {"cpu": "250m", "memory": "596Mi"}, {"example.com/x": 1, "memory": "596Mi"}),
    ],
)
def test_each_amount_that_the_model_gives_stands_alone(given: object, requests: object, limits: object) -> None:
    assert container(model(pod={"resources": given}))["resources"] == {"requests": requests, "limits": limits}


def test_a_limit_that_is_too_small_for_four_at_once_makes_it_one() -> None:
    small = model(pod={"resources": {"limits": {"memory": "400Mi"}}})
    for subject, parallel in ((model(), "4"), (small, "1")):
        variables = {item.get("name"): item.get("value") for item in objects(container(subject), "env")}
        assert variables["OLLAMA_NUM_PARALLEL"] == parallel


@pytest.mark.parametrize(
    ("settings", "load"),
    [
        ({"OLLAMA_NUM_PARALLEL": "1"}, Load(4096, 1)),
        ({"OLLAMA_CONTEXT_LENGTH": "2048"}, Load(2048, 4)),
        ({"OLLAMA_KV_CACHE_TYPE": "q8_0"}, Load(4096, 4, cache_type="q8_0")),
        ({"OLLAMA_FLASH_ATTENTION": "false"}, Load(4096, 4, flash_attention=False)),
    ],
)
def test_the_installations_settings_count_in_the_memory(settings: dict[str, str], load: Load) -> None:
    asked = container(model(), defaults=RunnerDefaults(settings=settings))["resources"]
    assert dig(asked, "requests", "memory") == mebibytes(load)


def test_a_variable_of_the_model_counts_in_the_memory_as_the_runner_will_read_it() -> None:
    subject = model(pod={"env": [{"name": "OLLAMA_NUM_PARALLEL", "value": "1"}]})
    assert dig(container(subject)["resources"], "requests", "memory") == mebibytes(Load(4096, 1))


def test_without_facts_only_cpu_is_asked_for() -> None:
    bare = objects(pod_spec(model(), 0, None, defaults=RunnerDefaults()), "containers")[0]
    assert bare["resources"] == {"requests": {"cpu": "250m"}}


def test_nobody_asks_whether_a_runner_lives_before_it_has_loaded() -> None:
    startup = container(model())["startupProbe"]
    assert dig(startup, "httpGet", "path") == "/readyz?wait=4"
    waited, patience = dig(startup, "timeoutSeconds"), dig(startup, "failureThreshold")
    assert isinstance(waited, int)
    assert waited > 4, "the kubelet outlasts the runner's answer"
    assert (dig(startup, "periodSeconds"), patience) == (1, 300 / 4 + 30)


@pytest.mark.parametrize(
    ("size", "patience", "seconds"), [(10 << 30, 300.0, 542), (10 << 30, 1000.0, 1000), (1, FOREVER, 2**31 - 1)]
)
def test_a_load_may_take_as_long_as_a_slow_disk_does(size: int, patience: float, seconds: int) -> None:
    assert load_budget(size, RunnerDefaults(load_timeout=patience)) == seconds
