"""Accelerators: the kinds of runner images for GPUs, and the settings of pods by the vendor of their GPUs.

An accelerator is named for the ggml backend that its image has besides the CPU's.

The vendor follows from the domain of the extended resource, which is the same for whole GPUs, MIG slices and shared
ones: ``nvidia.com/gpu``, ``nvidia.com/mig-3g.20gb``, ``nvidia.com/gpu.shared``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from corral_core.model.pod import EnvVar, Key, LabelValue, Resources, TolerationSpec, check_unique_names, check_variable

Vendor = Literal["nvidia", "amd", "intel"]

_DOMAINS: Mapping[str, Vendor] = {
    "nvidia.com": "nvidia",
    "gpu.nvidia.com": "nvidia",
    "amd.com": "amd",
    "gpu.intel.com": "intel",
}
"""Domains of the resources that the vendors' device plugins advertise, and of the DeviceClass of NVIDIA's DRA driver.

https://github.com/NVIDIA/k8s-device-plugin, https://github.com/ROCm/k8s-device-plugin,
https://github.com/intel/intel-device-plugins-for-kubernetes/tree/main/cmd/gpu_plugin
"""

_PREFERRED: Mapping[Vendor, str] = {"nvidia": "cuda", "amd": "rocm"}


def vendor_of(resource: str) -> Vendor | None:
    """Return the vendor of the GPUs of an extended resource, None for an unknown domain."""
    return _DOMAINS.get(resource.partition("/")[0])


def accelerators_for(resource: str) -> tuple[str, ...]:
    """Return the accelerators (``cuda``, ``rocm``, ``vulkan``) for the GPUs of an extended resource, preferred first.

    Vulkan is the last for all of them: ggml's backend for it runs on the drivers of every vendor.
    """
    vendor = vendor_of(resource)
    preferred = _PREFERRED.get(vendor) if vendor is not None else None
    return (preferred, "vulkan") if preferred is not None else ("vulkan",)


class GPUPodSettings(BaseModel):
    """Settings of runner pods with GPUs of one vendor; those of the Model take precedence.

    ``supplemental_groups`` are groups of the nodes that own the device files: AMD's and Intel's device plugins mount
    them with the owner that they have on the node, and runners are not root.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, strict=True)

    node_selector: dict[Key, LabelValue] = Field(default_factory=dict, max_length=64)
    tolerations: list[TolerationSpec] = Field(default_factory=list, max_length=64)
    resources: Resources = Field(default_factory=Resources)
    env: Annotated[list[Annotated[EnvVar, AfterValidator(check_variable)]], AfterValidator(check_unique_names)] = Field(
        default_factory=list, max_length=256
    )
    supplemental_groups: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(default_factory=list, max_length=16)
