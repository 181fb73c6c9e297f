"""NetworkPolicies of pods that pull, and of runners that do not."""

from __future__ import annotations

from corral_core.base.json_fields import get_object, get_objects, get_value
from corral_core.model.resource import parse_model
from corral_operator.config import PullerDefaults
from corral_operator.reconcile.manifests import network_policy
from corral_operator.reconcile.pulling.network_policy import puller_network_policy
from tests.operator import pull_samples

MODEL = parse_model(pull_samples.model())


def test_pullers_reach_everything_but_link_local_addresses_and_only_the_operator_reaches_them() -> None:
    operator = {"podSelector": {"matchLabels": {"app": "operator"}}}
    registry = {"namespaceSelector": {"matchLabels": {"name": "registry"}}}
    policy = puller_network_policy(MODEL, PullerDefaults(clients=(operator,), destinations=(registry,)))
    spec = get_object(policy, "spec")
    assert get_value(spec, "podSelector", "matchExpressions") == [
        {"key": "app.kubernetes.io/name", "operator": "In", "values": ["corral-puller", "corral-resolver"]}
    ]
    assert spec["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}], "from": [operator]}]
    names, out = get_objects(spec, "egress")
    assert {port["port"] for port in get_objects(names, "ports")} == {53}
    destinations = get_objects(out, "to")
    assert destinations[-1] == registry
    assert get_value(destinations[0], "ipBlock", "except") == ["169.254.0.0/16"]


def test_the_policy_of_the_runners_does_not_select_pods_that_reach_sources() -> None:
    policy = network_policy(MODEL, [{"podSelector": {}}])
    assert get_value(policy, "spec", "podSelector", "matchExpressions") == [
        {"key": "app.kubernetes.io/name", "operator": "In", "values": ["corral-runner", "corral-inspector"]}
    ]
    assert get_value(policy, "spec", "egress") == []
