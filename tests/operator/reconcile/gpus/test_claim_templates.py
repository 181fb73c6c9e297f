"""Applier: the template of a Model's claims is written before the pods that need it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.json_fields import get_str, get_value
from corral_core.planning.dra_offers import CLAIMED_MEMORY
from corral_kube.errors import error_from_status
from corral_operator.config import RunnerDefaults
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.reconcile.applier import ObjectRejected
from tests.operator import samples
from tests.operator.fake_kube import FakeKube
from tests.operator.reconcile.test_applier import DEPLOYMENT, SERVICE, ApplierCase
from tests.support.fake_gpus import FakeGpu, resource_slice

DEFAULTS = RunnerDefaults(images={"cuda": "corral/runner-cuda:dev"})
GPU: dict[str, object] = {"count": 1, "sharing": "shared"}


@pytest.fixture
def case(kube: FakeKube, state: ClusterState) -> ApplierCase:
    """An applier in a cluster with a node whose GPU a DRA driver publishes."""
    state.replace(Kind.NODES, [samples.node("n")], "1")
    state.replace(Kind.OTHER_PODS, [], "1")
    state.replace(Kind.RESOURCE_SLICES, [resource_slice("n", [FakeGpu(0)])], "1")
    case = ApplierCase(kube, state)
    case.set_defaults(DEFAULTS)
    return case


def template_of(case: ApplierCase) -> str:
    """Return the path of the template that the Deployment's pods name."""
    claims = get_value(case.kube.objects[DEPLOYMENT], "spec", "template", "spec", "resourceClaims")
    assert isinstance(claims, list)
    name = get_str(claims[0], "resourceClaimTemplateName")
    return f"/apis/resource.k8s.io/v1/namespaces/lab/resourceclaimtemplates/{name}"


async def test_the_template_is_written_before_the_deployment(case: ApplierCase) -> None:
    template, *others = await case.apply(1, gpu=GPU)
    assert others == [DEPLOYMENT, SERVICE]
    assert template == template_of(case)


async def test_the_deployment_requires_the_memory_of_the_claim_of_its_node(case: ApplierCase) -> None:
    await case.apply(1, gpu=GPU)
    requirements = case.state.requirements("lab/tiny")
    assert requirements is not None
    asked = get_value(case.kube.objects[template_of(case)], "spec", "spec", "devices", "requests")
    assert isinstance(asked, list)
    size = get_str(asked[0], "exactly", "capacity", "requests", "memory")
    assert f"{dict(requirements.requests)[CLAIMED_MEMORY] >> 20}Mi" == size


async def test_an_unchanged_template_is_not_written_again(case: ApplierCase) -> None:
    await case.apply(1, gpu=GPU)
    assert await case.apply(1, gpu=GPU) == []


async def test_each_start_writes_the_template_which_may_have_been_deleted(case: ApplierCase) -> None:
    await case.apply(0, gpu=GPU)
    template = template_of(case)
    assert await case.apply(1, gpu=GPU) == [template, DEPLOYMENT]


async def test_another_memory_makes_another_template(case: ApplierCase) -> None:
    await case.apply(1, gpu=GPU)
    first = template_of(case)
    await case.apply(1, gpu=GPU, contextLength=2048)
    assert template_of(case) != first
    assert template_of(case) in case.kube.objects


async def test_a_refused_template_is_the_models_failure(case: ApplierCase) -> None:
    case.set_defaults(replace(DEFAULTS, runtime_class=""))
    message = "forbidden: exceeded quota"
    case.kube.failures = [error_from_status(403, f"PATCH /x: 403 {message}", server_message=message)]
    with pytest.raises(ObjectRejected, match="ResourceClaimTemplate"):
        await case.apply(1, gpu=GPU)
    assert DEPLOYMENT not in case.kube.objects
