"""What a runner pod with GPUs gets of the installation, by the vendor of the GPUs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_value
from corral_core.model.accelerator import GPUPodSettings, Vendor
from corral_core.model.resource import parse_model
from corral_operator.config import RunnerDefaults
from corral_operator.reconcile.gpus.alternatives import requested_as_given
from corral_operator.reconcile.runner_pod import pod_spec
from tests.operator import samples
from tests.operator.reconcile.loads import chosen_load

IMAGES = {"cuda": "r/cuda:1", "vulkan": "r/vulkan:1", "rocm": "r/rocm:1"}
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
NVIDIA: Mapping[Vendor, GPUPodSettings] = {
    "nvidia": GPUPodSettings.model_validate(
        {
            "nodeSelector": {"pool": "gpu", "zone": "a"},
            "tolerations": [TOLERATION],
            "resources": {"requests": {"cpu": 4, "memory": "2Gi"}, "limits": {"cpu": 8}},
            "env": [{"name": "A", "value": "gpu"}, {"name": "B", "value": "gpu"}],
        }
    )
}


def spec(resource: str | None, *, defaults: RunnerDefaults, **fields: object) -> Mapping[str, object]:
    gpu = {"gpu": {"count": 1, "resource": resource}} if resource else {"gpu": {"count": 0}}
    model = parse_model(samples.model(spec={**gpu, **fields}))
    return pod_spec(model, None, defaults=defaults, gpus=requested_as_given(model.spec.gpu))


def container(pod: Mapping[str, object]) -> JsonObject:
    return get_objects(pod, "containers")[0]


@pytest.mark.parametrize(
    ("resource", "images", "image"),
    [
        ("nvidia.com/gpu", IMAGES, "r/cuda:1"),
        ("nvidia.com/mig-3g.20gb", IMAGES, "r/cuda:1"),
        ("nvidia.com/gpu.shared", IMAGES, "r/cuda:1"),
        ("amd.com/gpu", IMAGES, "r/rocm:1"),
        ("amd.com/gpu", {"vulkan": "r/vulkan:1"}, "r/vulkan:1"),
        ("nvidia.com/gpu", {"vulkan": "r/vulkan:1"}, "r/vulkan:1"),
        ("gpu.intel.com/i915", IMAGES, "r/vulkan:1"),
        ("gpu.intel.com/xe", IMAGES, "r/vulkan:1"),
        ("example.com/gpu", IMAGES, "r/vulkan:1"),
        ("nvidia.com/gpu", {"rocm": "r/rocm:1"}, None),
        ("nvidia.com.example/gpu", {"cuda": "r/cuda:1"}, None),
    ],
)
def test_the_image_is_chosen_by_the_vendor_of_the_resource(
    resource: str, images: Mapping[str, str], image: str | None
) -> None:
    assert RunnerDefaults(images=images).image_for(resource) == image


def test_a_pod_has_the_image_of_its_gpus_and_otherwise_that_for_cpus() -> None:
    defaults = RunnerDefaults(image="r/cpu:1", images=IMAGES)
    assert container(spec("amd.com/gpu", defaults=defaults))["image"] == "r/rocm:1"
    assert container(spec(None, defaults=defaults))["image"] == "r/cpu:1"


def test_the_image_of_the_model_takes_precedence() -> None:
    pod = spec("nvidia.com/gpu", defaults=RunnerDefaults(images=IMAGES), pod={"image": "mine:1"})
    assert container(pod)["image"] == "mine:1"


@pytest.mark.parametrize(
    ("setting", "resource", "used"),
    [
        (None, "nvidia.com/gpu", "nvidia"),
        ("", "nvidia.com/gpu", None),
        ("nvidia-cdi", "nvidia.com/gpu", "nvidia-cdi"),
        ("nvidia-cdi", "amd.com/gpu", None),
    ],
)
def test_the_runtime_class_of_the_installation_is_for_nvidia_gpus(
    setting: str | None, resource: str, used: str | None
) -> None:
    assert spec(resource, defaults=RunnerDefaults(runtime_class=setting)).get("runtimeClassName") == used


def test_the_runtime_class_of_the_model_takes_precedence() -> None:
    pod = spec("nvidia.com/gpu", defaults=RunnerDefaults(runtime_class=""), runtimeClassName="mine")
    assert pod["runtimeClassName"] == "mine"


def test_pods_with_gpus_of_the_vendor_get_its_nodes_tolerations_resources_and_variables() -> None:
    pod = spec("nvidia.com/gpu", defaults=RunnerDefaults(gpu_pods=NVIDIA))
    assert pod["nodeSelector"] == {"pool": "gpu", "zone": "a"}
    assert TOLERATION in get_objects(pod, "tolerations")
    assert len(get_objects(pod, "tolerations")) == 3  # and those of unreachable nodes
    assert get_value(container(pod), "resources") == {
        "requests": {"cpu": 4, "memory": "2Gi"},
        "limits": {"cpu": 8, "nvidia.com/gpu": 1},
    }
    assert {"name": "A", "value": "gpu"} in get_objects(container(pod), "env")


@pytest.mark.parametrize("resource", [None, "amd.com/gpu"])
def test_other_pods_get_none_of_it(resource: str | None) -> None:
    assert spec(resource, defaults=RunnerDefaults(gpu_pods=NVIDIA)) == spec(resource, defaults=RunnerDefaults())


def test_the_pod_overrides_of_the_model_take_precedence() -> None:
    own = {
        "nodeSelector": {"zone": "b"},
        "resources": {"requests": {"cpu": 1}},
        "env": [{"name": "A", "value": "own"}],
    }
    pod = spec("nvidia.com/gpu", defaults=RunnerDefaults(gpu_pods=NVIDIA), pod=own)
    assert pod["nodeSelector"] == {"pool": "gpu", "zone": "b"}
    assert get_value(container(pod), "resources", "requests") == {"cpu": 1, "memory": "2Gi"}
    variables = {item["name"]: item.get("value") for item in get_objects(container(pod), "env")}
    assert (variables["A"], variables["B"]) == ("own", "gpu")


def test_a_variable_for_the_gpus_is_counted_in_the_memory_estimate() -> None:
    settings = GPUPodSettings.model_validate({"env": [{"name": "OLLAMA_CONTEXT_LENGTH", "value": "512"}]})
    model = parse_model(samples.model(spec={"gpu": {"count": 1}}))
    load = chosen_load(model, defaults=RunnerDefaults(gpu_pods={"nvidia": settings}))
    assert load.estimate is not None
    assert load.estimate.load_config.context_length == 512


def test_all_runner_images_are_pulled_with_the_secrets_of_the_installation_and_the_model() -> None:
    secrets = {"imagePullSecrets": [{"name": "own"}, {"name": "registry"}]}
    pod = spec(None, defaults=RunnerDefaults(pull_secrets=("registry", "mirror")), pod=secrets)
    assert pod["imagePullSecrets"] == [{"name": "own"}, {"name": "registry"}, {"name": "mirror"}]


def test_a_runner_has_the_groups_of_the_devices_and_keeps_its_restrictions() -> None:
    settings = GPUPodSettings.model_validate({"supplementalGroups": [44, 109]})
    pod = spec("amd.com/gpu", defaults=RunnerDefaults(gpu_pods={"amd": settings}))
    security = get_object(pod, "securityContext")
    assert (security["supplementalGroups"], security["runAsNonRoot"]) == ([44, 109], True)
