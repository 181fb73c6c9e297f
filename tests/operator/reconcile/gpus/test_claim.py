"""Claims by which runners share GPUs of a DRA driver."""

from __future__ import annotations

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str
from corral_core.model.model import Model
from corral_core.model.resource import parse_model
from corral_core.planning.dra_offers import DRIVER, claimed_memory
from corral_core.planning.gpus.request import GpuRequest
from corral_operator.reconcile.gpus.claim import GPUClaim, claim_template, gpu_claim, with_claim
from tests.operator import samples

GI, MI = 2**30, 2**20


def model(**gpu: object) -> Model:
    return parse_model(samples.model(spec={"gpu": {"sharing": "shared", **gpu}}))


def claim_of(subject: Model, memory: int, *, count: int = 1) -> GPUClaim:
    found = gpu_claim(subject, GpuRequest(DRIVER, count, memory))
    assert found is not None
    return found


def template(subject: Model, memory: int, *, count: int = 1) -> JsonObject:
    return claim_template(subject, claim_of(subject, memory, count=count), {"name": subject.name})


def request(made: JsonObject) -> JsonObject:
    (found,) = get_objects(made, "spec", "spec", "devices", "requests")
    return get_object(found, "exactly")


def test_the_claim_asks_for_the_memory_on_a_gpu_that_may_be_shared() -> None:
    asked = request(template(model(), 9 * GI))
    assert (asked["deviceClassName"], asked["count"]) == ("gpu.nvidia.com", 1)
    assert asked["capacity"] == {"requests": {"memory": "9216Mi"}}
    assert asked["selectors"] == [{"cel": {"expression": "device.allowMultipleAllocations == true"}}]


def test_the_memory_is_rounded_up_to_the_step_of_the_driver() -> None:
    assert request(template(model(), 2 * MI + 1))["capacity"] == {"requests": {"memory": "3Mi"}}


def test_several_gpus_of_a_claim_are_different_ones() -> None:
    devices = get_object(template(model(), GI, count=2), "spec", "spec", "devices")
    assert devices["constraints"] == [{"requests": ["gpu"], "distinctAttribute": "gpu.nvidia.com/uuid"}]
    assert "constraints" not in get_object(template(model(), GI), "spec", "spec", "devices")


def test_product_compute_capability_and_memory_of_the_model_select_devices() -> None:
    subject = model(product="NVIDIA-L4", computeCapability="8.0", memory="20Gi")
    (selector,) = get_objects(request(template(subject, GI)), "selectors")
    assert get_str(selector, "cel", "expression").split(" && ") == [
        "device.allowMultipleAllocations == true",
        "device.attributes['gpu.nvidia.com'].productName.replace(' ', '-') == 'NVIDIA-L4'",
        "device.attributes['gpu.nvidia.com'].cudaComputeCapability.compareTo(semver('8.0.0')) >= 0",
        "device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('21474836480')) >= 0",
    ]


def test_a_template_belongs_to_its_model_and_so_do_its_claims() -> None:
    made = template(model(), GI)
    assert get_objects(made, "metadata", "ownerReferences") == [{"name": "tiny"}]
    assert get_str(made, "spec", "metadata", "labels", "corral.dev/model") == "tiny"


def test_a_template_with_other_content_has_another_name() -> None:
    subject = model()
    claims = [claim_of(subject, memory, count=count) for memory, count in ((GI, 1), (2 * GI, 1), (GI, 2), (GI, 1))]
    names = {claim.template for claim in claims}
    assert len(names) == 3


@pytest.mark.parametrize("gpus", [None, GpuRequest("nvidia.com/gpu", 1, GI)], ids=["CPU", "device plugin"])
def test_other_runners_have_no_claim(gpus: GpuRequest | None) -> None:
    assert gpu_claim(model(), gpus) is None


def test_the_pod_has_the_claim_and_says_how_much_it_takes() -> None:
    pod: JsonObject = {
        "metadata": {"annotations": {"team": "red"}},
        "spec": {"containers": [{"name": "runner", "resources": {"limits": {"memory": "1Gi"}}}]},
    }
    claim = claim_of(model(), GI, count=2)
    made = with_claim(pod, claim)
    assert claimed_memory(made) == {"gpu.nvidia.com/memory": 2 * GI}
    assert get_object(made, "metadata", "annotations")["team"] == "red"
    (container,) = get_objects(made, "spec", "containers")
    assert container["resources"] == {"limits": {"memory": "1Gi"}, "claims": [{"name": "gpu"}]}
    assert get_objects(made, "spec", "resourceClaims") == [{"name": "gpu", "resourceClaimTemplateName": claim.template}]
