"""What the chart says of networks: who reaches the pods, and how weights are pulled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import pytest

from corral_operator.config import HostCredentials, from_environment
from tests.cluster.api import Object, at
from tests.cluster.helm import CHART, FULLNAME, Helm, rendered, variable

pytestmark = pytest.mark.cluster


def test_network_policies_admit_the_scrapers_of_metrics(helm: Helm) -> None:
    monitor = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}

    def admitted(part: str, port: str, values: Mapping[str, object]) -> object:
        made = rendered(helm, {"monitoring": values})
        [policy] = [
            item
            for item in made
            if item["kind"] == "NetworkPolicy" and at(item, "metadata", "name") == f"{FULLNAME}-{part}"
        ]
        rules = cast("list[Object]", at(policy, "spec", "ingress"))
        return next(rule.get("from", "all") for rule in rules if rule["ports"] == [{"port": port}])

    asked = {"enabled": True, "from": [monitor]}
    assert admitted("gateways", "metrics", asked) == admitted("operator", "http", asked) == [monitor]
    assert admitted("gateways", "metrics", {}) == admitted("operator", "http", {}) == "all"


def test_the_operator_gets_the_clients_of_the_runners(helm: Helm) -> None:
    monitor = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    pods: dict[str, object] = {"podSelector": {}}
    own = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}

    def clients(**values: object) -> list[object]:
        text = variable(rendered(helm, values), "operator", "CORRAL_RUNNER_CLIENTS")
        return cast("list[object]", json.loads(text or "[]"))

    [control] = clients()
    assert at(control, "podSelector", "matchLabels") == {"app.kubernetes.io/instance": "other"}
    assert at(control, "podSelector", "matchExpressions", 0, "values") == ["corral-gateway", "corral-operator"]
    assert at(control, "namespaceSelector") == own["namespaceSelector"]
    assert clients(networkPolicy={"runnersFrom": [monitor, pods]}) == [control, monitor, {**pods, **own}]
    assert clients(monitoring={"enabled": True, "from": [monitor]}) == [control, monitor]
    assert clients(monitoring={"enabled": False, "from": [monitor]}) == [control]
    assert clients(networkPolicy={"runners": False}) == clients(networkPolicy={"enabled": False}) == []


def test_the_operator_gets_the_network_of_the_pullers(helm: Helm) -> None:
    proxy = {
        "httpsProxySecret": "proxy",
        "noProxy": ".example.com",
        "caBundle": {"configMap": "authorities", "key": "bundle.pem"},
    }
    env = [{"name": "HF_ENDPOINT", "value": "https://hub.example/$(path)"}]
    credentials = [{"host": "*.example.com", "secretName": "registry"}]
    values = {"proxy": proxy, "puller": {"env": env, "credentials": credentials}, "settings": {"pullers": 7}}
    objects = rendered(helm, values)
    environment = {
        name: value
        for name in (f"CORRAL_PULLER_{word}" for word in _PULLER_SETTINGS)
        if (value := variable(objects, "operator", name)) is not None
    }
    config = from_environment({**environment, "CORRAL_PULLERS": variable(objects, "operator", "CORRAL_PULLERS") or ""})
    puller = config.runner.puller
    assert (puller.https_proxy, puller.https_proxy_secret) == ("", ("proxy", "httpsProxy"))
    assert (puller.no_proxy, puller.ca_config_map, puller.ca_key) == (".example.com", "authorities", "bundle.pem")
    assert (list(puller.env), puller.limit) == (env, 7)
    assert puller.credentials == (HostCredentials("*.example.com", "registry"),)
    [client] = puller.clients
    assert at(client, "podSelector", "matchLabels", "app.kubernetes.io/name") == "corral-operator"
    off = rendered(helm, {"networkPolicy": {"runners": False}})
    assert variable(off, "operator", "CORRAL_PULLER_CLIENTS") is None


def test_a_proxy_with_a_password_is_no_value(helm: Helm) -> None:
    values = {"proxy": {"httpsProxy": "http://user:secret@proxy.example:3128"}}  # pragma: allowlist secret
    done = helm("template", "other", str(CHART), values=values)
    assert done.returncode != 0
    assert "httpsProxy" in done.stderr


_PULLER_SETTINGS = (
    "HTTPS_PROXY",
    "HTTPS_PROXY_SECRET",
    "NO_PROXY",
    "CA_CONFIG_MAP",
    "CA_SECRET",
    "CA_KEY",
    "ENV",
    "CREDENTIALS",
    "CLIENTS",
    "DESTINATIONS",
)
