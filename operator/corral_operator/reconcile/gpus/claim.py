"""Claims by which runners share GPUs that a DRA driver publishes.

Kubernetes makes a ResourceClaim for each pod from a template of the Model, and the scheduler allocates the devices: it
finds the node and the GPUs that have the memory. A template cannot be changed, so its name has a digest of its content.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final

from corral_core.base.json_fields import JsonObject, get_object, get_objects
from corral_core.base.quantities import MEMORY, resource_amount
from corral_core.model.model import Model
from corral_core.planning.dra_offers import CLAIM_ANNOTATION, DRIVER
from corral_core.planning.gpus.request import MIB, GpuRequest
from corral_operator.observe.labels import owned_name, runner_selector

CLAIM: Final = "gpu"
"""Name of the claim in a pod, and of the request in the claim."""

_ATTRIBUTES: Final = f"device.attributes['{DRIVER}']"


@dataclass(frozen=True, slots=True)
class GPUClaim:
    """``memory`` bytes, in whole MiB, on each of ``count`` GPUs. ``template`` is the name of the template."""

    template: str
    count: int
    memory: int

    @property
    def total(self) -> int:
        """Bytes on all GPUs together."""
        return self.count * self.memory


def gpu_claim(model: Model, gpus: GpuRequest | None) -> GPUClaim | None:
    """Return the claim of runners with these GPUs; None if no DRA driver publishes them."""
    if gpus is None or gpus.resource != DRIVER:
        return None
    count, memory = gpus.count, -(-max(gpus.memory, 1) // MIB) * MIB
    spec = _template_spec(model, count, memory)
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:10]
    return GPUClaim(f"{owned_name(model.name)}-{digest}", count, memory)


def claim_template(model: Model, claim: GPUClaim, owner: JsonObject) -> JsonObject:
    """Return the ResourceClaimTemplate; ``owner`` is the reference to the Model."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": claim.template,
            "namespace": model.namespace,
            "labels": runner_selector(model.name),
            "ownerReferences": [owner],
        },
        "spec": _template_spec(model, claim.count, claim.memory),
    }


def with_claim(pod: JsonObject, claim: GPUClaim | None) -> JsonObject:
    """Return the pod template with the claim, if there is one, for its first container, the runner."""
    if claim is None:
        return pod
    metadata, spec = get_object(pod, "metadata"), get_object(pod, "spec")
    runner, *others = get_objects(spec, "containers")
    resources = {**get_object(runner, "resources"), "claims": [{"name": CLAIM}]}
    annotations = {**get_object(metadata, "annotations"), CLAIM_ANNOTATION: str(claim.total)}
    return {
        **pod,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {
            **spec,
            "containers": [{**runner, "resources": resources}, *others],
            "resourceClaims": [{"name": CLAIM, "resourceClaimTemplateName": claim.template}],
        },
    }


def _template_spec(model: Model, count: int, memory: int) -> JsonObject:
    """Return what is in every claim. Several GPUs of a claim are different ones."""
    request = {
        "name": CLAIM,
        "exactly": {
            "deviceClassName": DRIVER,
            "allocationMode": "ExactCount",
            "count": count,
            "selectors": [{"cel": {"expression": " && ".join(_conditions(model))}}],
            "capacity": {"requests": {"memory": f"{memory // MIB}Mi"}},
        },
    }
    different = [{"requests": [CLAIM], "distinctAttribute": f"{DRIVER}/uuid"}] if count > 1 else []
    devices = {"requests": [request], **({"constraints": different} if different else {})}
    return {"metadata": {"labels": runner_selector(model.name)}, "spec": {"devices": devices}}


def _conditions(model: Model) -> list[str]:
    """Return what a device must fulfil, as CEL expressions; the Model's own strings have no quotation marks."""
    gpu = model.spec.gpu
    conditions = ["device.allowMultipleAllocations == true"]
    if gpu.product is not None:
        conditions.append(f"{_ATTRIBUTES}.productName.replace(' ', '-') == '{gpu.product}'")
    if gpu.compute_capability is not None:
        major, minor = map(int, gpu.compute_capability.split("."))
        conditions.append(f"{_ATTRIBUTES}.cudaComputeCapability.compareTo(semver('{major}.{minor}.0')) >= 0")
    if gpu.memory is not None:
        least = resource_amount(MEMORY, gpu.memory)
        conditions.append(f"device.capacity['{DRIVER}'].memory.compareTo(quantity('{least}')) >= 0")
    return conditions
