"""Values files for platforms: the chart accepts them, and runners with their settings fit the platform's GPU nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import yaml

from corral_core.model.resource import parse_model
from corral_core.planning.gpus.request import GpuRequest
from corral_core.planning.node import parse_node, pod_requirements
from corral_core.planning.node_fit import could_ever_run
from corral_operator.config import RunnerDefaults, from_environment
from corral_operator.reconcile.runner_pod import pod_spec
from tests.cluster.helm import CHART, Helm, rendered, variable
from tests.cluster.test_proxy_values import PROXIES

pytestmark = pytest.mark.cluster

VALUES = CHART / "values"
_SETTINGS = ("IMAGE_CUDA", "IMAGE_VULKAN", "IMAGE_ROCM", "PULL_SECRETS", "RUNTIME_CLASS", "ACCELERATORS")


@dataclass(frozen=True)
class Platform:
    """Taint and labels of a GPU node as the platform documents them, and the RuntimeClass that a runner names there."""

    resource: str
    taint: tuple[str, str] | None
    labels: tuple[tuple[str, str], ...] = ()
    runtime_class: str | None = None
    image: str = "registry.example/corral/runner-cuda:1"


PLATFORMS = {
    "gke": Platform("nvidia.com/gpu", ("nvidia.com/gpu", "present"), (("cloud.google.com/gke-accelerator", "l4"),)),
    "eks": Platform("nvidia.com/gpu", ("nvidia.com/gpu", "true")),
    "aks": Platform("nvidia.com/gpu", ("sku", "gpu"), (("accelerator", "nvidia"),)),
    "k3s": Platform("nvidia.com/gpu", None, runtime_class="nvidia"),
    "nvidia-gpu-operator": Platform("nvidia.com/mig-1g.10gb", ("nvidia.com/gpu", ""), runtime_class="nvidia"),
    "amd-gpu-operator": Platform(
        "amd.com/gpu",
        ("amd.com/gpu", ""),
        (("feature.node.kubernetes.io/amd-gpu", "true"),),
        image="registry.example/corral/runner-vulkan:1",
    ),
}


def test_every_file_is_a_platform_or_a_proxy_of_a_test() -> None:
    assert {file.stem for file in VALUES.iterdir()} == PLATFORMS.keys() | PROXIES.keys()


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_runner_fits_the_gpu_nodes_of_the_platform(helm: Helm, name: str) -> None:
    platform, values = PLATFORMS[name], yaml.safe_load((VALUES / f"{name}.yaml").read_text())
    defaults = installed(helm, values)
    pod = gpu_pod(platform.resource, defaults)
    assert pod.get("runtimeClassName") == platform.runtime_class
    assert could_ever_run(parse_node(gpu_node(platform)), pod_requirements(pod))
    assert defaults.image_for(platform.resource) == platform.image


def test_a_taint_of_another_key_is_tolerated_by_its_file_alone(helm: Helm) -> None:
    pod = gpu_pod("nvidia.com/gpu", installed(helm, {}))
    assert could_ever_run(parse_node(gpu_node(PLATFORMS["gke"])), pod_requirements(pod))
    assert not could_ever_run(parse_node(gpu_node(PLATFORMS["aks"])), pod_requirements(pod))


def test_the_operator_gets_the_settings_of_gpu_pods_unchanged(helm: Helm) -> None:
    env = [{"name": "A", "value": '$(B) "quoted"'}]
    runner = {
        "images": {"cuda": {"repository": ""}, "rocm": {"registry": "amd.example", "repository": "rocm", "tag": "6"}},
        "pullSecrets": [{"name": "one"}, {"name": "two"}],
        "runtimeClass": "cdi",
        "accelerators": {"amd": {"env": env, "supplementalGroups": [44], "resources": {"limits": {"cpu": 4}}}},
    }
    defaults = installed(helm, {"runner": runner})
    assert defaults.images == {"vulkan": "registry.example/corral/runner-vulkan:1", "rocm": "amd.example/rocm:6"}
    assert (defaults.pull_secrets, defaults.runtime_class) == (("one", "two"), "cdi")
    settings = defaults.gpu_pod("amd.com/gpu")
    assert (settings.env, settings.supplemental_groups) == (env, [44])
    assert settings.resources["limits"] == {"cpu": 4}


def installed(helm: Helm, values: Mapping[str, object]) -> RunnerDefaults:
    """Return the runner defaults of an operator that the chart installs with these values."""
    objects = rendered(helm, values)
    environ = {f"CORRAL_RUNNER_{each}": variable(objects, "operator", f"CORRAL_RUNNER_{each}") for each in _SETTINGS}
    assert None not in environ.values()
    return from_environment({key: value for key, value in environ.items() if value}).runner


def gpu_pod(resource: str, defaults: RunnerDefaults) -> dict[str, object]:
    model = parse_model({"metadata": {"name": "tiny"}, "spec": {"source": "file:///weights.gguf"}})
    return pod_spec(model, None, defaults=defaults, gpus=GpuRequest(resource, 1))


def gpu_node(platform: Platform) -> dict[str, object]:
    taints = [{"key": platform.taint[0], "value": platform.taint[1], "effect": "NoSchedule"}] if platform.taint else []
    return {
        "metadata": {"name": "gpu-1", "labels": dict(platform.labels)},
        "spec": {"taints": taints},
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110", platform.resource: "2"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
