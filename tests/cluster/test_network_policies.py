"""NetworkPolicies of the runners on a real API server, made by an operator that has the chart's settings."""

from __future__ import annotations

import json

import pytest

from tests.cluster.api import Object, at
from tests.cluster.cluster import Cluster
from tests.cluster.helm import FULLNAME, Helm, rendered, variable
from tests.cluster.installation import POLL_INTERVAL, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]

MONITOR = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}


def _settings(helm: Helm, **values: object) -> dict[str, str]:
    """Return the operator's setting for these values of the chart."""
    objects = rendered(helm, values)
    names = ("CORRAL_RUNNER_CLIENTS", "CORRAL_PULLER_CLIENTS", "CORRAL_PULLER_DESTINATIONS")
    found = {name: variable(objects, "operator", name) for name in names}
    return {name: value for name, value in found.items() if value}


def _path(corral: Installation, model: str, *, pullers: bool = False) -> str:
    name = f"pull-model-{model}" if pullers else f"model-{model}"
    return f"/apis/networking.k8s.io/v1/namespaces/{corral.namespace}/networkpolicies/{name}"


def _policy(corral: Installation, model: str, *, pullers: bool = False) -> Object | None:
    return corral.cluster.api.find(_path(corral, model, pullers=pullers))


def _spec(corral: Installation, model: str, *, pullers: bool = False) -> object:
    return at(_policy(corral, model, pullers=pullers), "spec")


def test_only_gateways_operator_and_named_scrapers_reach_the_runners_which_open_nothing(
    corral: Installation, helm: Helm
) -> None:
    corral.start_operator(**_settings(helm, monitoring={"enabled": True, "from": [MONITOR]}))
    corral.add("guarded")
    corral.wait_phase("guarded", "Idle")
    policy = _policy(corral, "guarded")
    assert at(policy, "metadata", "ownerReferences", 0, "uid") == at(corral.model("guarded"), "metadata", "uid")
    assert at(policy, "spec", "policyTypes") == ["Ingress", "Egress"]
    assert not at(policy, "spec", "egress")
    assert at(policy, "spec", "podSelector") == {
        "matchLabels": {"corral.dev/model": "guarded"},
        "matchExpressions": [
            {"key": "app.kubernetes.io/name", "operator": "In", "values": ["corral-runner", "corral-inspector"]}
        ],
    }
    [rule] = policy["spec"]["ingress"]  # type: ignore[index]
    assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]
    control = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        "podSelector": {
            "matchLabels": {"app.kubernetes.io/instance": "other"},
            "matchExpressions": [
                {"key": "app.kubernetes.io/name", "operator": "In", "values": ["corral-gateway", "corral-operator"]}
            ],
        },
    }
    assert rule["from"] == [control, MONITOR]


def test_pods_that_pull_reach_addresses_outside_and_only_the_operator_reaches_them(
    corral: Installation, helm: Helm
) -> None:
    registry = {"namespaceSelector": {"matchLabels": {"name": "registry"}}}
    corral.start_operator(**_settings(helm, networkPolicy={"pullersTo": [registry]}))
    corral.add("remote", source="hf://organization/model", pod={})
    until(lambda: _policy(corral, "remote", pullers=True), 30, what="the policy of the pullers", interval=POLL_INTERVAL)
    spec = _spec(corral, "remote", pullers=True)
    assert at(spec, "podSelector", "matchExpressions", 0, "values") == ["corral-puller", "corral-resolver"]
    client = at(spec, "ingress", 0, "from", 0)
    assert at(client, "podSelector", "matchLabels", "app.kubernetes.io/name") == "corral-operator"
    assert at(client, "namespaceSelector", "matchLabels") == {"kubernetes.io/metadata.name": "default"}
    assert [at(spec, "egress", 0, "ports", index, "port") for index in (0, 1)] == [53, 53]
    destinations = at(spec, "egress", 1, "to")
    assert at(destinations, 0, "ipBlock") == {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}
    assert destinations[-1] == registry  # type: ignore[index]
    assert not at(_policy(corral, "remote"), "spec", "egress"), "runners open nothing"
    corral.edit("remote", source="file:///weights.gguf")
    until(
        lambda: _policy(corral, "remote", pullers=True) is None,
        30,
        what="the end of the policy",
        interval=POLL_INTERVAL,
    )


def test_the_policy_is_deleted_with_its_model(corral: Installation, helm: Helm) -> None:
    corral.start_operator(**_settings(helm))
    corral.add("short-lived")
    corral.wait_phase("short-lived", "Idle")
    assert _policy(corral, "short-lived") is not None
    corral.cluster.api.delete(corral.path("short-lived"))
    until(lambda: _policy(corral, "short-lived") is None, 40, what="the end of the policy", interval=POLL_INTERVAL)


def test_an_edited_or_deleted_policy_is_restored(corral: Installation, helm: Helm) -> None:
    corral.start_operator(**_settings(helm))
    corral.add("kept")
    corral.wait_phase("kept", "Idle")
    before = _spec(corral, "kept")
    assert before is not None
    corral.cluster.api.patch(_path(corral, "kept"), {"spec": {"ingress": [{}], "egress": [{}]}})
    until(lambda: _spec(corral, "kept") == before, 15, what="the policy as it was")
    corral.cluster.api.delete(_path(corral, "kept"))
    until(lambda: _spec(corral, "kept") == before, 15, what="the policy again")


def test_an_operator_without_network_policies_deletes_those_of_its_models_and_no_others(
    corral: Installation, helm: Helm
) -> None:
    first = corral.start_operator("first", **_settings(helm))
    corral.add("released")
    corral.wait_phase("released", "Idle")
    assert _policy(corral, "released") is not None
    folder = f"/apis/networking.k8s.io/v1/namespaces/{corral.namespace}/networkpolicies"
    corral.cluster.api.create(folder, {"metadata": {"name": "own"}, "spec": {"podSelector": {}}})
    assert first.stop() == 0
    corral.start_operator("second", **_settings(helm, networkPolicy={"runners": False}))
    until(lambda: _policy(corral, "released") is None, 30, what="the end of the policy", interval=POLL_INTERVAL)
    assert corral.cluster.api.find(f"{folder}/own") is not None


def test_the_operators_role_covers_what_it_does_with_the_policies(cluster: Cluster, namespace: str, helm: Helm) -> None:
    roles = [item for item in rendered(helm, {}, namespace=namespace) if "ClusterRole" in str(item["kind"])]
    text = "\n---\n".join(json.dumps(item) for item in roles)
    cluster.kubectl("apply", "--server-side", "-f", "-", input=text)
    account = f"--as=system:serviceaccount:{namespace}:{FULLNAME}-operator"

    def allowed(verb: str) -> bool:
        asked = ("auth", "can-i", verb, "networkpolicies.networking.k8s.io", account, "-n", "default")
        return cluster.kubectl(*asked, check=False).stdout.strip() == "yes"

    try:
        verbs = ("list", "watch", "create", "patch", "delete")
        until(lambda: all(map(allowed, verbs)), 15, what="the permissions", interval=0.2)
        assert not any(map(allowed, ("update", "deletecollection")))
    finally:
        cluster.kubectl("delete", "--wait=false", "-f", "-", input=text)
