"""Calls to the API server, counted under the names that RBAC gives them."""

from __future__ import annotations

import asyncio

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from corral_core.metrics import render
from corral_kube.calls import Calls, call_of
from corral_kube.client import Kube
from corral_kube.errors import Unreachable
from tests.support.exposition import families, value


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
def test_verb_and_resource_are_those_of_rbac(method: str, path: str, watch: bool, call: tuple[str, str]) -> None:
    assert call_of(method, path, watch=watch) == call


def test_a_watch_counts_when_it_begins_and_has_no_duration() -> None:
    calls = Calls()
    calls.note("GET", "/api/v1/pods", watch=True, code="200", seconds=9.0)
    text = render([lambda: calls.families("corral_operator")])
    assert value(text, "corral_operator_api_requests_total", verb="watch", resource="pods", code="200") == 1
    assert families(text)["corral_operator_api_request_seconds"] == "histogram"
    assert value(text, "corral_operator_api_request_seconds_count", verb="list") == 0
    assert 'api_request_seconds_count{verb="watch"}' not in text


def test_a_call_without_an_answer_counts_as_an_error() -> None:
    async def scenario() -> Calls:
        configuration = Configuration()
        configuration.host = "http://127.0.0.1:1"
        kube = Kube(ApiClient(configuration), manager="test")
        try:
            with pytest.raises(Unreachable):
                await kube.get("/api/v1/namespaces/a/pods/x")
        finally:
            await kube.close()
        return kube.calls

    calls = asyncio.run(scenario())
    assert calls.counts == {("get", "pods", "error"): 1}
