"""Values of the chart for the Models that clients create: the permission of the gateways, and the registry of blobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from corral_operator.config import HostCredentials, from_environment
from tests.cluster.api import Object, at
from tests.cluster.helm import CHART, Helm, rendered, variable

pytestmark = pytest.mark.cluster

KEYS = {"gateway": {"apiKeys": {"secret": "keys"}}}


def test_the_operator_gets_the_login_of_the_registry_of_blobs(helm: Helm) -> None:
    blobs = {"repository": "http://registry.tools:5000/corral/blobs", "sourceSecret": "pull"}
    made = rendered(helm, {"models": {"blobs": blobs}})
    config = from_environment(
        {"CORRAL_PULLER_CREDENTIALS": variable(made, "operator", "CORRAL_PULLER_CREDENTIALS") or ""}
    )
    assert config.runner.puller.credentials == (HostCredentials("registry.tools:5000", "pull"),)


@pytest.mark.parametrize(
    ("values", "kind", "namespaces"),
    [
        ({}, "", []),
        (KEYS | {"models": {"create": "Never"}}, "", []),
        (KEYS, "ClusterRole", [None]),
        (KEYS | {"watchNamespaces": ["a", "b"]}, "Role", ["a", "b"]),
        (KEYS | {"models": {"namespaces": ["a"]}}, "Role", ["a"]),
        ({"models": {"create": "Anyone"}}, "Role", ["default"]),
        ({"models": {"create": "Anyone"}, "sharedNamespaces": ["base", "more"]}, "Role", ["base"]),
    ],
)
def test_gateways_may_write_models_only_where_clients_can_create_them(
    helm: Helm, values: Mapping[str, object], kind: str, namespaces: list[str | None]
) -> None:
    roles = [item for item in rendered(helm, values) if item["kind"] in ("Role", "ClusterRole")]
    writes = {"apiGroups": ["corral.dev"], "resources": ["models"], "verbs": ["get", "create", "update", "delete"]}
    granted = [role for role in roles if writes in cast("list[Object]", role["rules"])]
    assert [role["kind"] for role in granted] == [kind] * len(namespaces)
    assert [at(role, "metadata", "namespace") for role in granted] == namespaces


def test_models_of_clients_are_made_in_served_namespaces_alone(helm: Helm) -> None:
    values = KEYS | {"watchNamespaces": ["a"], "models": {"namespace": "b"}}
    done = helm("template", "other", str(CHART), "--kube-version", "1.36.0", values=values)
    assert done.returncode != 0
    assert 'the namespace "b" is not one of watchNamespaces' in done.stderr
