"""Fake GPUs of a node, as NVIDIA's programs describe real ones: CDI specification, labels, ResourceSlice.

A container that has a fake GPU has a variable ``FAKE_GPU_<index>`` and a file ``/run/fake-gpus/<uuid>``. Nothing
computes on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KIND: Final = "nvidia.com/gpu"
"""Kind of the devices in CDI, and the extended resource under which NVIDIA's device plugin offers them."""

PRODUCT: Final = "NVIDIA-L4"
MEMORY_MIB: Final = 23_034
DRIVER: Final = "gpu.nvidia.com"
"""Name of NVIDIA's DRA driver, and of its DeviceClass."""

RESOURCES: Final = "/apis/resource.k8s.io/v1"
COMPUTE_CAPABILITY: Final = (8, 9)
MOUNTED: Final = "/run/fake-gpus"


@dataclass(frozen=True, slots=True)
class FakeGpu:
    index: int

    @property
    def uuid(self) -> str:
        return f"GPU-00000000-0000-4000-8000-{self.index:012d}"

    @property
    def cdi_name(self) -> str:
        return f"{KIND}={self.uuid}"


def write_cdi(gpus: Sequence[FakeGpu], folder: Path) -> None:
    """Write the CDI specification (https://github.com/cncf-tags/container-device-interface) into its folder."""
    mounted = folder / "gpu"
    mounted.write_text("a fake GPU\n")
    devices = [
        {
            "name": gpu.uuid,
            "containerEdits": {
                "env": [f"FAKE_GPU_{gpu.index}={gpu.uuid}"],
                "mounts": [
                    {
                        "hostPath": str(mounted),
                        "containerPath": f"{MOUNTED}/{gpu.uuid}",
                        "options": ["ro", "nosuid", "nodev", "bind"],
                    }
                ],
            },
        }
        for gpu in gpus
    ]
    (folder / "nvidia.json").write_text(json.dumps({"cdiVersion": "0.6.0", "kind": KIND, "devices": devices}))


def labels(gpus: Sequence[FakeGpu]) -> dict[str, str]:
    """Return the labels of a node with these GPUs (GPU feature discovery's README, "Generated Labels")."""
    major, minor = COMPUTE_CAPABILITY
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": str(len(gpus)),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.product": PRODUCT,
        "nvidia.com/gpu.memory": str(MEMORY_MIB),
        "nvidia.com/gpu.compute.major": str(major),
        "nvidia.com/gpu.compute.minor": str(minor),
        "nvidia.com/gpu.family": "ada-lovelace",
        "nvidia.com/mig.capable": "false",
    }


def device_class() -> dict[str, object]:
    """Return the DeviceClass of NVIDIA's chart (``deviceclass-gpu.yaml``)."""
    attributes = f"device.attributes['{DRIVER}']"
    expression = f"device.driver == '{DRIVER}' && {attributes}.type == 'gpu'"
    spec = {"selectors": [{"cel": {"expression": expression}}], "extendedResourceName": "nvidia.com/gpu"}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": DRIVER},
        "spec": spec,
    }


def resource_slice(node: str, gpus: Sequence[FakeGpu], *, memory: str = f"{MEMORY_MIB}Mi") -> dict[str, object]:
    """Return the ResourceSlice of a node with these GPUs, each with so much memory.

    The devices may be allocated several times, and their memory is consumed, as with ``--consumable-shares=memory`` of
    NVIDIA's driver (https://github.com/kubernetes-sigs/dra-driver-nvidia-gpu, ``consumable_shares.go``,
    ``deviceinfo.go``).
    """
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    devices = [_device(gpu, memory) for gpu in gpus]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-{DRIVER}"},
        "spec": {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices},
    }


def _device(gpu: FakeGpu, memory: str) -> dict[str, object]:
    major, minor = COMPUTE_CAPABILITY
    requests = {"default": memory, "validRange": {"min": "1Mi", "max": memory, "step": "1Mi"}}
    return {
        "name": f"gpu-{gpu.index}",
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": gpu.uuid},
            "productName": {"string": PRODUCT.replace("-", " ")},
            "architecture": {"string": "Ada Lovelace"},
            "cudaComputeCapability": {"version": f"{major}.{minor}.0"},
        },
        "capacity": {"memory": {"value": memory, "requestPolicy": requests}},
        "allowMultipleAllocations": True,
    }
