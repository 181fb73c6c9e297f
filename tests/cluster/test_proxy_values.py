"""Values files for Ingress controllers, the Gateway API, meshes and load balancers: streams and cold starts pass them.

The API server checks each object against its schema, other projects' kinds included. Google publishes the schemas of
its kinds in no Go module, so only single fields of them are checked here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

import pytest
import yaml

from tests.cluster.api import Object, at
from tests.cluster.cluster import Cluster
from tests.cluster.helm import CHART, FULLNAME, Helm, rendered

pytestmark = pytest.mark.cluster

VALUES = CHART / "values"
COLD_START = 3600
"""Seconds without a byte that each proxy must allow, unless its maximum is less."""

Timeout = Callable[[list[Object]], object]


def annotated(kind: str, name: str) -> Timeout:
    """Return a function that finds an annotation of the only object of a kind."""
    return lambda made: cast("dict[str, str]", at(only(made, kind), "metadata", "annotations"))[name]


def only(made: list[Object], kind: str) -> Object:
    [found] = [item for item in made if item["kind"] == kind]
    return found


NLB = "service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-11434"
AZURE = "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout"
PROXIES: dict[str, tuple[Timeout, object]] = {
    "ingress-nginx": (annotated("Ingress", "nginx.ingress.kubernetes.io/proxy-read-timeout"), str(COLD_START)),
    "traefik": (lambda made: at(only(made, "Ingress"), "spec", "ingressClassName"), "traefik"),
    "gateway-api": (lambda made: at(only(made, "HTTPRoute"), "spec", "rules", 0, "timeouts", "request"), "0s"),
    "istio": (lambda made: at(only(made, "VirtualService"), "spec", "http", 0, "timeout"), None),
    "aws-alb": (
        annotated("Ingress", "alb.ingress.kubernetes.io/load-balancer-attributes"),
        "idle_timeout.timeout_seconds=4000",
    ),
    "aws-nlb": (annotated("Service", NLB), "tcp.idle_timeout.seconds=6000"),
    "gke-ingress": (lambda made: at(only(made, "BackendConfig"), "spec", "timeoutSec"), 86400),
    "gke-gateway": (lambda made: at(only(made, "GCPBackendPolicy"), "spec", "default", "timeoutSec"), 86400),
    "aks-application-gateway": (annotated("Ingress", "appgw.ingress.kubernetes.io/request-timeout"), "86400"),
    "aks-load-balancer": (annotated("Service", AZURE), "100"),
}
"""The timeout of each file that a cold start needs, and its value; Istio and Traefik have none unless it is set."""

GOOGLE = {"cloud.google.com/v1", "networking.gke.io/v1"}


@pytest.mark.usefixtures("foreign_kinds")
@pytest.mark.parametrize("name", PROXIES)
def test_the_proxy_waits_for_a_cold_start_and_the_api_server_accepts_its_objects(
    cluster: Cluster, helm: Helm, name: str
) -> None:
    made = rendered(helm, yaml.safe_load((VALUES / f"{name}.yaml").read_text()))
    timeout, expected = PROXIES[name]
    assert timeout(made) == expected
    assert_leads_to_the_gateways(made)
    checked = [item for item in made if item["kind"] in _ENTRIES and item["apiVersion"] not in GOOGLE]
    assert len(checked) >= 2
    dry = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-o", "name")
    accepted = cluster.kubectl(*dry, "-f", "-", input="\n---\n".join(map(json.dumps, checked))).stdout.split()
    assert len(accepted) == len(checked)


def assert_leads_to_the_gateways(made: list[Object]) -> None:
    """Assert that routes and policies name the Service, or that the Service is the load balancer itself."""
    targets = {at(item, *path) for item in made for path in _TARGETS.get(str(item["kind"]), ())}
    assert targets <= {FULLNAME, f"{FULLNAME}.default.svc.cluster.local"}
    service = only(made, "Service")
    assert targets or at(service, "spec", "type") == "LoadBalancer"
    assert at(service, "metadata", "name") == FULLNAME


def test_the_backend_config_of_gke_is_that_of_the_service(helm: Helm) -> None:
    made = rendered(helm, yaml.safe_load((VALUES / "gke-ingress.yaml").read_text()))
    annotations = cast("dict[str, str]", at(only(made, "Service"), "metadata", "annotations"))
    name = json.loads(annotations["cloud.google.com/backend-config"])["default"]
    assert name == at(only(made, "BackendConfig"), "metadata", "name")


def test_texts_of_further_objects_may_have_templates(helm: Helm) -> None:
    text = '{{ include "corral.fullname" . }}-{{ .Values.service.port }}'
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}, "data": {"service": text}}
    made = rendered(helm, {"extraObjects": [config]})
    assert at(only(made, "ConfigMap"), "data", "service") == f"{FULLNAME}-11434"


_ENTRIES = {"Service", "Ingress", "HTTPRoute", "VirtualService", "Deployment"}
_TARGETS: dict[str, tuple[tuple[str | int, ...], ...]] = {
    "Ingress": (("spec", "rules", 0, "http", "paths", 0, "backend", "service", "name"),),
    "HTTPRoute": (("spec", "rules", 0, "backendRefs", 0, "name"),),
    "VirtualService": (("spec", "http", 0, "route", 0, "destination", "host"),),
    "GCPBackendPolicy": (("spec", "targetRef", "name"),),
    "HealthCheckPolicy": (("spec", "targetRef", "name"),),
}
