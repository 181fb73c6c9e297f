"""Other installations of the operator: which one acts for a Model."""

from __future__ import annotations

import pytest

from corral_core.base.json_fields import JsonObject
from corral_kube.errors import Forbidden
from corral_operator.config import LeaseConfig
from corral_operator.observe import api_paths
from corral_operator.observe.objects import ModelObject, parse_model_object
from corral_operator.process.other_installations import CHECK_INTERVAL, OtherInstallations
from tests.operator import samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube

OTHER_LEASE = api_paths.leases("a", "corral-operator")
STATUS = api_paths.model_status("lab", "tiny")


class Case:
    """The installation b/corral-operator, whose Lease is of 12:00, and another one, a/corral-operator."""

    def __init__(self, kube: FakeKube, clock: ManualClock) -> None:
        self.kube = kube
        self.clock = clock
        config = LeaseConfig(namespace="b")
        self.subject = OtherInstallations(kube, config, created=lambda: "2027-01-15T12:00:00Z", clock=clock)

    def renew(self, *, created: str = "2027-01-15T11:00:00Z", holder: str = "pod") -> None:
        """Renew the Lease of the other installation."""
        self.kube.version += 1
        metadata = {"resourceVersion": str(self.kube.version), "creationTimestamp": created}
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 15}
        self.kube.objects[OTHER_LEASE] = {"metadata": metadata, "spec": spec}

    async def owner(self, claim: str = "a/corral-operator", name: str = "tiny") -> str | None:
        self.clock.now += CHECK_INTERVAL
        return await self.subject.owner(model(claim, name))


def model(claim: str, name: str = "tiny") -> ModelObject:
    status: JsonObject = {"operator": claim} if claim else {}
    return parse_model_object(samples.model(name, status=status))


@pytest.fixture
def case(kube: FakeKube, clock: ManualClock) -> Case:
    for name in ("tiny", "new"):
        kube.objects[api_paths.models("lab") + f"/{name}"] = dict(samples.model(name))
    return Case(kube, clock)


async def test_a_model_without_a_claim_or_with_the_own_one_is_not_left_and_nothing_is_read(case: Case) -> None:
    case.kube.failures = [Forbidden("nothing may be read")]
    assert await case.owner("") is None
    assert await case.owner("b/corral-operator") is None
    assert case.kube.writes == []


async def test_a_model_of_an_older_active_installation_is_left_to_it_with_one_condition(case: Case) -> None:
    for _ in range(3):
        case.renew()
        assert await case.owner() == "a/corral-operator"
    assert case.kube.writes == [STATUS]


async def test_a_model_of_a_younger_installation_is_not_left(case: Case) -> None:
    case.renew(created="2027-01-15T13:00:00Z")
    assert await case.owner() is None
    assert case.kube.writes == []


async def test_a_new_model_of_a_namespace_that_another_installation_serves_is_left_too(case: Case) -> None:
    case.renew()
    await case.owner()
    case.renew()
    assert await case.owner("", "new") == "a/corral-operator"


@pytest.mark.parametrize("end", ["deleted", "released", "not renewed"])
async def test_a_model_is_taken_over_when_the_other_installation_has_ended(case: Case, end: str) -> None:
    case.renew()
    assert await case.owner() == "a/corral-operator"
    if end == "deleted":
        del case.kube.objects[OTHER_LEASE]
    elif end == "released":
        case.renew(holder="")
    else:
        await case.owner()
    assert await case.owner() is None
    assert case.kube.writes == [STATUS, STATUS]
    assert await case.owner("", "new") is None


async def test_of_two_that_may_not_read_each_others_lease_one_acts(case: Case, kube: FakeKube) -> None:
    kube.failures = [Forbidden("no")]
    assert await case.owner() == "a/corral-operator"
    mirrored = OtherInstallations(kube, LeaseConfig(namespace="a"), created=lambda: "", clock=case.clock)
    kube.failures = [Forbidden("no")]
    assert await mirrored.owner(model("b/corral-operator")) is None


async def test_the_conditions_are_removed_at_the_end(case: Case) -> None:
    case.renew()
    await case.owner()
    await case.subject.close()
    assert case.kube.writes == [STATUS, STATUS]
