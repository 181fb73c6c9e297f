"""Kinds of GPU nodes with the labels of NVIDIA's GPU feature discovery, and dimensions of models by their size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral_core.contracts.model_metadata import LayerGroup, ModelDimensions
from corral_core.weights.load_config import LoadConfig

GPU = "nvidia.com/gpu"
MIG = "nvidia.com/mig-3g.20gb"
LAYERS = 32
CONFIGS = (LoadConfig(4096, 4), LoadConfig(4096, 1))
"""Load configs of ``parallel: auto``."""


@dataclass(frozen=True, slots=True)
class NodeKind:
    """``resources`` are the devices of a node, ``labels`` its labels."""

    resources: Mapping[str, str]
    labels: Mapping[str, str]


def gpu_kind(
    resource: str, count: int, mebibytes: int, product: str, *, replicas: int = 1, major: int = 8, minor: int = 0
) -> NodeKind:
    """Return nodes with ``count`` devices of this memory, each shared by ``replicas`` by time-slicing."""
    labels = {
        f"{resource}.count": str(count),
        f"{resource}.memory": str(mebibytes),
        f"{resource}.product": f"{product}-SHARED" if replicas > 1 else product,
        f"{resource}.replicas": str(replicas),
        f"{resource}.sharing-strategy": "time-slicing" if replicas > 1 else "none",
        "nvidia.com/gpu.compute.major": str(major),
        "nvidia.com/gpu.compute.minor": str(minor),
        "nvidia.com/gpu.present": "true",
    }
    return NodeKind({resource: str(count * replicas)}, labels)


L4 = gpu_kind(GPU, 1, 23034, "NVIDIA-L4", minor=9)
A100 = gpu_kind(GPU, 4, 81920, "NVIDIA-A100-SXM4-80GB")
SLICES = gpu_kind(MIG, 2, 19968, "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb")
SHARED = gpu_kind(GPU, 1, 15360, "Tesla-T4", replicas=4, major=7, minor=5)


def dimensions(gibibytes: float) -> ModelDimensions:
    """Return a model of 32 equal layers that together have this size."""
    layer = int(gibibytes * 2**30) // LAYERS
    return ModelDimensions(
        weights=LAYERS * layer + 2 * 2**27,
        layers=LAYERS,
        embedding=4096,
        vocabulary=32_000,
        keys=LAYERS * 1024,
        values=LAYERS * 1024,
        padded_values=LAYERS * 1024,
        heads=32,
        query=4096,
        key_value=2048,
        feed_forward=14_336,
        input_weights=2**27,
        output_weights=2**27,
        layer_groups=(LayerGroup(LAYERS, layer, keys=1024, values=1024),),
    )
