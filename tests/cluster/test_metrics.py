"""The metrics of operator, gateway and runner as real processes on a real API server, through one life of a Model."""

from __future__ import annotations

import math

import httpx
import pytest

from tests.cluster.api import at
from tests.cluster.control_plane import free_ports
from tests.cluster.processes import LOOK, WAKE, Installation
from tests.support.exposition import families, problems, value
from tests.support.promql import SCRAPE, Line, Question, evaluate, expositions
from tests.support.waiting import until
from tests.test_monitoring import targets

pytestmark = [pytest.mark.cluster, pytest.mark.process]


NOTHING_TO_SEE = {"Drafts that were right", "Memory of models", "Connections", "Ready runners"}
"""Panels of which some query tells nothing here: of speculation, GPUs, clients turned away, runners not heard."""


def scraped(host: str, port: int) -> str:
    answer = httpx.get(f"http://{host}:{port}/metrics", timeout=10.0, trust_env=False)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


@pytest.mark.usefixtures("stand_in")
def test_all_three_processes_tell_of_a_request_from_waking_to_eviction(corral: Installation) -> None:
    operator_port, gateway_port = free_ports(2)
    corral.start_operator(CORRAL_HTTP_PORT=str(operator_port))
    gateway = corral.start_gateway(CORRAL_METRICS_PORT=str(gateway_port))
    corral.add("counted", keepAlive="8s")
    corral.wait_phase("counted", "Idle")
    answer = corral.ask(gateway, "counted", tokens=24)
    corral.wait_phase("counted", "Ready")
    answer.result(WAKE)
    key = f"{corral.namespace}/counted"

    (pod,) = corral.cluster.api.items(
        f"/api/v1/namespaces/{corral.namespace}/pods", labelSelector="corral.dev/model=counted"
    )
    told = scraped(str(at(pod, "status", "podIP")), 8080)
    assert problems(told) == ""
    assert value(told, "corral_runner_generated_tokens_total", model=key) == 24

    told = scraped("127.0.0.1", gateway_port)
    assert problems(told) == ""
    assert value(told, "corral_gateway_requests_total", model=key, api="/api/generate", code="200") == 1
    assert value(told, "corral_gateway_wake_seconds_count", model=key) == 1
    for verb, resource in (("list", "models"), ("watch", "endpointslices"), ("patch", "models/status")):
        assert value(told, "corral_gateway_api_requests_total", verb=verb, resource=resource, code="200") >= 1

    corral.wait_phase("counted", "Idle")
    told = scraped("127.0.0.1", operator_port)
    assert problems(told) == ""
    assert families(told)["corral_operator_plan_seconds"] == "histogram"
    assert value(told, "corral_operator_acting") == 1
    assert value(told, "corral_operator_evictions_total", reason="expired") == 1
    assert value(told, "corral_operator_model_phase", model=key, phase="Idle") == 1
    assert value(told, "corral_operator_api_requests_total", verb="patch", resource="deployments", code="200") >= 1
    corral.cluster.api.delete(corral.path("counted"))
    until(lambda: key not in scraped("127.0.0.1", operator_port), 15, what="the end of its series", interval=LOOK)
    until(lambda: key not in scraped("127.0.0.1", gateway_port), 15, what="the end of its series", interval=LOOK)


@pytest.mark.usefixtures("stand_in")
def test_every_panel_of_the_dashboard_shows_something_of_a_running_installation(corral: Installation) -> None:
    operator_port, gateway_port = free_ports(2)
    corral.start_operator(CORRAL_HTTP_PORT=str(operator_port))
    gateway = corral.start_gateway(CORRAL_METRICS_PORT=str(gateway_port))
    corral.add("shown")
    corral.wait_phase("shown", "Idle")
    kept = {"operator": [scraped("127.0.0.1", operator_port)], "gateway": [scraped("127.0.0.1", gateway_port)]}
    for _ in range(2):
        corral.ask(gateway, "shown", tokens=24).result(WAKE)
        (pod,) = corral.cluster.api.items(
            f"/api/v1/namespaces/{corral.namespace}/pods", labelSelector="corral.dev/model=shown"
        )
        kept.setdefault("runner", []).append(scraped(str(at(pod, "status", "podIP")), 8080))
        kept["operator"].append(scraped("127.0.0.1", operator_port))
        kept["gateway"].append(scraped("127.0.0.1", gateway_port))

    lines: list[Line] = []
    for process, texts in kept.items():
        lines += expositions(texts, start=SCRAPE * (3 - len(texts)), pod=process, instance=process)
    queries = list(targets())
    answers = evaluate(lines, [Question(query, 2 * SCRAPE, 2 * SCRAPE) for _, query in queries])
    empty = {
        title
        for (title, _), answer in zip(queries, answers, strict=True)
        if not any(math.isfinite(value) for line in answer for _, value in line.points)
    }
    assert empty <= NOTHING_TO_SEE
