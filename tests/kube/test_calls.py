"""Metrics of API calls, labelled with the verbs and resources of RBAC."""

from __future__ import annotations

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from corral_kube.calls import APICallMetrics, verb_and_resource
from corral_kube.client import KubeClient
from corral_kube.errors import APIServerUnreachable
from tests.support.exposition import expose_text, parse_metric_types, sample_value


@pytest.mark.parametrize(
    ("method", "path", "watch", "call"),
    [
        ("GET", "/api/v1/pods", False, ("list", "pods")),
        ("GET", "/api/v1/namespaces/a/pods", True, ("watch", "pods")),
        ("GET", "/api/v1/namespaces/a", False, ("get", "namespaces")),
        ("PATCH", "/apis/corral.dev/v1alpha1/namespaces/a/models/tiny/status", False, ("patch", "models/status")),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            False,
            ("create", "selfsubjectaccessreviews"),
        ),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/x", False, ("update", "leases")),
        ("DELETE", "/api/v1/namespaces/a/pods/x", False, ("delete", "pods")),
        ("GET", "/version", False, ("get", "version")),
    ],
)
def test_verb_and_resource_match_rbac(method: str, path: str, watch: bool, call: tuple[str, str]) -> None:
    assert verb_and_resource(method, path, watch=watch) == call


def test_watch_counts_at_its_start_without_a_duration() -> None:
    calls = APICallMetrics()
    calls.record("GET", "/api/v1/pods", watch=True, code="200", seconds=9.0)
    text = expose_text(lambda: calls.families("corral_operator"))
    assert sample_value(text, "corral_operator_kube_api_requests_total", verb="watch", resource="pods", code="200") == 1
    assert parse_metric_types(text)["corral_operator_kube_api_request_duration_seconds"] == "histogram"
    assert sample_value(text, "corral_operator_kube_api_request_duration_seconds_count", verb="list") == 0
    assert 'api_request_seconds_count{verb="watch"}' not in text


async def test_call_without_a_response_counts_as_an_error() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    kube = KubeClient(ApiClient(configuration), manager="test")
    try:
        with pytest.raises(APIServerUnreachable):
            await kube.get("/api/v1/namespaces/a/pods/x")
    finally:
        await kube.close()
    assert kube.calls.counts == {("get", "pods", "error"): 1}
