"""Resource requests and limits of the runner container, from the memory estimate unless the Model sets them.

Memory: the estimate is both request and limit. CPU: a small request and no limit, so that a runner uses all cores of a
node that is otherwise idle. ``spec.pod.resources`` overrides each of the amounts separately.
"""

from __future__ import annotations

from typing import Literal

from corral_core.base.quantities import CPU, MEMORY, STORAGE, resource_amount
from corral_core.model.model import Model
from corral_core.model.pod import Resources
from corral_core.planning.dra_offers import DRIVER
from corral_core.planning.gpus.request import GpuRequest
from corral_core.weights.memory_estimate import MIB, MemoryEstimate
from corral_operator.config import RunnerDefaults


def resources(
    model: Model,
    estimate: MemoryEstimate | None,
    *,
    defaults: RunnerDefaults,
    gpus: GpuRequest | None = None,
    storage: str = "",
) -> dict[str, object]:
    """Return the container's ``resources``. A limit that the Model sets alone is also the request, as in Kubernetes.

    ``storage`` is the disk space that the pod takes of its node, as a quantity.
    """
    requests: dict[str, object] = _given("requests", model, gpus=gpus, defaults=defaults)
    limits: dict[str, object] = _given("limits", model, gpus=gpus, defaults=defaults)
    if CPU not in requests and CPU not in limits and resource_amount(CPU, defaults.cpu_request):
        requests[CPU] = defaults.cpu_request
    if storage and STORAGE not in limits:
        requests.setdefault(STORAGE, storage)
    if estimate is not None and MEMORY not in limits:
        memory = f"{estimate.total // MIB}Mi"
        requests.setdefault(MEMORY, memory)
        limits[MEMORY] = max(memory, requests[MEMORY], key=lambda size: resource_amount(MEMORY, size))
    if gpus is not None and gpus.resource != DRIVER:  # those are in a claim
        limits[gpus.resource] = gpus.count
    return {kind: amounts for kind, amounts in (("requests", requests), ("limits", limits)) if amounts}


def _given(
    kind: Literal["requests", "limits"], model: Model, *, gpus: GpuRequest | None, defaults: RunnerDefaults
) -> dict[str, object]:
    """Return the amounts that the Model sets, and below them those of the installation's settings for its GPUs."""
    own = model.spec.pod.resources
    general = defaults.gpu_pod(gpus.resource).resources if gpus is not None else Resources()
    return {**general.get(kind, {}), **own.get(kind, {})}


def memory_limit(model: Model, gpus: GpuRequest | None, *, defaults: RunnerDefaults) -> int | None:
    """Return the memory limit in bytes that the Model or the installation's settings for its GPUs set."""
    limits = _given("limits", model, gpus=gpus, defaults=defaults)
    return resource_amount(MEMORY, limits[MEMORY]) if MEMORY in limits else None
