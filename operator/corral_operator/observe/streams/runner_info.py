"""What a loaded runner reports of its model and of its GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import Model
from corral_core.planning.gpus.offers import is_gpu_resource
from corral_operator.observe.objects import PodObject


@dataclass(frozen=True, slots=True)
class RunnerInfo:
    """What a loaded runner reports of its model: metadata, slots, context length (tokens) and bytes of memory.

    ``devices`` are its GPUs: name and bytes of memory.
    """

    metadata: ModelMetadata
    parallel: int
    context_length: int
    size_bytes: int = 0
    vram_bytes: int = 0
    devices: tuple[tuple[str, int], ...] = ()


def gpu_memory(info: RunnerInfo, pod: PodObject, model: Model) -> tuple[str, int] | None:
    """Return the resource of the pod's GPUs and the memory of the smallest one in bytes, None if they are not known.

    A Model with an image of its own could report any memory, and pods of other Models would go there.
    """
    gpus = [(name, number) for name, number in pod.requests.items() if is_gpu_resource(name)]
    if model.spec.pod.image is not None or len(gpus) != 1 or gpus[0][1] != len(info.devices):
        return None
    return gpus[0][0], min(total for _, total in info.devices)
