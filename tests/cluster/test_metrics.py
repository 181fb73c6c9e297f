"""Metrics of operator, gateway and runner as real processes, from the load of a Model to its deletion."""

from __future__ import annotations

import math

import httpx
import pytest

from tests.cluster.api import at
from tests.cluster.installation import POLL_INTERVAL, START_TIMEOUT, Installation
from tests.support.exposition import lint_metrics, parse_metric_types, sample_value
from tests.support.ports import free_ports
from tests.support.promql import SCRAPE, RangeQuery, Series, evaluate, scraped_series
from tests.support.waiting import until
from tests.test_monitoring import targets

pytestmark = [pytest.mark.cluster, pytest.mark.process]


GPU_PANELS = {"GPU utilisation", "GPU memory", "GPU temperature", "GPU power", "GPU errors"}
EMPTY_PANELS = {"Draft acceptance ratio", "Model memory", "Connections", "Ready runners"} | GPU_PANELS
"""Panels with queries that have no data here: speculation, GPUs, rejected clients, unresponsive runners."""


def scraped(host: str, port: int) -> str:
    response = httpx.get(f"http://{host}:{port}/metrics", timeout=10.0, trust_env=False)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return response.text


@pytest.mark.usefixtures("fake_kubelet")
def test_all_processes_count_a_request_from_cold_start_to_eviction(corral: Installation) -> None:
    operator_port, gateway_port = free_ports(2)
    corral.start_operator(CORRAL_HTTP_PORT=str(operator_port))
    gateway = corral.start_gateway(CORRAL_METRICS_PORT=str(gateway_port))
    corral.add("counted", keepAlive="8s")
    corral.wait_phase("counted", "Idle")
    response = corral.send(gateway, "counted", tokens=24)
    corral.wait_phase("counted", "Ready")
    response.result(START_TIMEOUT)
    key = f"{corral.namespace}/counted"

    (pod,) = corral.cluster.api.items(
        f"/api/v1/namespaces/{corral.namespace}/pods", labelSelector="corral.dev/model=counted"
    )
    text = scraped(str(at(pod, "status", "podIP")), 8080)
    assert lint_metrics(text) == ""
    assert sample_value(text, "corral_runner_generated_tokens_total", model=key) == 24

    text = scraped("127.0.0.1", gateway_port)
    assert lint_metrics(text) == ""
    assert sample_value(text, "corral_gateway_requests_total", model=key, api="/api/generate", code="200") == 1
    assert sample_value(text, "corral_gateway_wake_seconds_count", model=key) == 1
    for verb, resource in (("list", "models"), ("watch", "endpointslices"), ("patch", "models/status")):
        assert (
            sample_value(text, "corral_gateway_kube_api_requests_total", verb=verb, resource=resource, code="200") >= 1
        )

    corral.wait_phase("counted", "Idle")
    text = scraped("127.0.0.1", operator_port)
    assert lint_metrics(text) == ""
    assert parse_metric_types(text)["corral_operator_plan_duration_seconds"] == "histogram"
    assert sample_value(text, "corral_operator_leader") == 1
    assert sample_value(text, "corral_operator_evictions_total", reason="expired") == 1
    assert sample_value(text, "corral_operator_model_phase", model=key, phase="Idle") == 1
    assert (
        sample_value(text, "corral_operator_kube_api_requests_total", verb="patch", resource="deployments", code="200")
        >= 1
    )
    corral.cluster.api.delete(corral.path("counted"))
    until(
        lambda: key not in scraped("127.0.0.1", operator_port), 15, what="the end of its series", interval=POLL_INTERVAL
    )
    until(
        lambda: key not in scraped("127.0.0.1", gateway_port), 15, what="the end of its series", interval=POLL_INTERVAL
    )


@pytest.mark.usefixtures("fake_kubelet")
def test_every_panel_of_the_dashboard_has_data_from_a_running_installation(corral: Installation) -> None:
    operator_port, gateway_port = free_ports(2)
    corral.start_operator(CORRAL_HTTP_PORT=str(operator_port))
    gateway = corral.start_gateway(CORRAL_METRICS_PORT=str(gateway_port))
    corral.add("shown")
    corral.wait_phase("shown", "Idle")
    kept = {"operator": [scraped("127.0.0.1", operator_port)], "gateway": [scraped("127.0.0.1", gateway_port)]}
    for _ in range(2):
        corral.send(gateway, "shown", tokens=24).result(START_TIMEOUT)
        (pod,) = corral.cluster.api.items(
            f"/api/v1/namespaces/{corral.namespace}/pods", labelSelector="corral.dev/model=shown"
        )
        kept.setdefault("runner", []).append(scraped(str(at(pod, "status", "podIP")), 8080))
        kept["operator"].append(scraped("127.0.0.1", operator_port))
        kept["gateway"].append(scraped("127.0.0.1", gateway_port))

    lines: list[Series] = []
    for process, texts in kept.items():
        lines += scraped_series(texts, start=SCRAPE * (3 - len(texts)), pod=process, instance=process)
    queries = list(targets())
    responses = evaluate(lines, [RangeQuery(query, 2 * SCRAPE, 2 * SCRAPE) for _, query in queries])
    empty = {
        title
        for (title, _), response in zip(queries, responses, strict=True)
        if not any(math.isfinite(value) for line in response for _, value in line.points)
    }
    assert empty <= EMPTY_PANELS
