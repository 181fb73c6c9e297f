"""Every alert fires in its situation and not in normal operation, evaluated by Prometheus' engine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest

from corral_core.base.metrics import LATENCY_BUCKETS
from tests.support.promql import END, Series, counter, ending_at, firing_alerts, gauge, histogram
from tests.test_monitoring import RULES

MODEL = "lab/tiny"
POD = {"pod": "corral-gateway-1"}
GPU = {"model": MODEL, "pod": "model-tiny-1", "gpu": "0", "product": "A100"}
Situation = Sequence[Series]


def _flat(*parts: Series | list[Series]) -> Situation:
    return [line for part in parts for line in (part if isinstance(part, list) else [part])]


def requests(rate: float, code: int, model: str = MODEL) -> Series:
    return counter("corral_gateway_requests_total", rate, model=model, api="/api/chat", code=str(code), **POD)


def incomplete(rate: float, wait_timeouts: float = 0.0) -> list[Series]:
    """Incomplete responses and wait timeouts."""
    responses = counter("corral_gateway_incomplete_responses_total", rate, model=MODEL, **POD)
    return [responses, rejected(wait_timeouts, "wait_timeout")]


def rejected(rate: float, reason: str) -> Series:
    return counter("corral_gateway_rejected_requests_total", rate, model=MODEL, reason=reason, **POD)


def phase(name: str) -> Series:
    return gauge("corral_operator_model_phase", 1, model=MODEL, phase=name)


def api_calls(process: str, rate: float, code: str) -> Series:
    name = f"corral_{process}_kube_api_requests_total"
    return counter(name, rate, verb="patch", resource="models/status", code=code)


def queue_times(name: str, seconds: float) -> list[Series]:
    return histogram(name, 0.1, seconds, bounds=LATENCY_BUCKETS, model=MODEL)


def runner(*, running: float, tokens: float) -> list[Series]:
    named = {"model": MODEL, "pod": "model-tiny-1"}
    return [
        gauge("corral_runner_running_sequences", running, **named),
        counter("corral_runner_generated_tokens_total", tokens, **named),
        counter("corral_runner_prompt_tokens_total", 0, **named),
    ]


def temperature(degrees: float) -> Series:
    return gauge("corral_runner_gpu_temperature_celsius", degrees, **GPU, uuid="GPU-1")


def queue(waiting: float) -> list[Series]:
    gateways = [gauge("corral_gateway_pending_requests", waiting / 2, model=MODEL, pod=pod) for pod in ("a", "b")]
    return [*gateways, gauge("corral_gateway_queue_limit", 512, **POD)]


def connections(here: float) -> list[Series]:
    return [gauge("corral_gateway_connections", here, **POD), gauge("corral_gateway_connection_limit", 1000, **POD)]


NORMAL: Situation = _flat(
    gauge("corral_gateway_synced", 1, **POD),
    gauge("corral_operator_leader", 1),
    gauge("corral_operator_leader", 0, pod="the one that stands by"),
    phase("Ready"),
    gauge("corral_operator_unresponsive_runners", 0, model=MODEL),
    queue(100),
    connections(100),
    gauge("corral_gateway_peers", 2, **POD),
    gauge("corral_gateway_peers_reporting", 2, **POD),
    requests(2, 200),
    requests(0.05, 500),
    requests(1, 503),
    requests(1, 499),
    requests(5, 404, model=""),
    incomplete(0.01),
    *(rejected(0, reason) for reason in ("queue_full", "model_queue_full", "unavailable")),
    *(
        counter("corral_gateway_upstream_retries_total", rate, model=MODEL, reason=reason)
        for reason, rate in (("unreachable", 0.0), ("not_ready", 0.2))
    ),
    queue_times("corral_gateway_wake_seconds", 20),
    histogram("corral_operator_workqueue_queue_duration_seconds", 1, 0.5, bounds=LATENCY_BUCKETS),
    runner(running=2, tokens=100),
    counter("corral_operator_gpu_failures_total", 0),
    temperature(80),
    counter("corral_operator_evictions_total", 0.005, reason="room"),
    counter("corral_operator_evictions_total", 1.0, reason="expired"),
    api_calls("operator", 5, "200"),
    api_calls("operator", 0.5, "409"),
    api_calls("gateway", 5, "200"),
)

SITUATIONS: Mapping[str, tuple[Situation, Mapping[str, str]]] = {
    "CorralGatewayDown": ([gauge("corral_gateway_synced", 0, **POD)], {}),
    "CorralOperatorDown": ([gauge("corral_operator_leader", 0)], {}),
    "CorralModelFailed": ([phase("Failed")], {"model": MODEL}),
    "CorralModelDegraded": ([phase("Degraded")], {"model": MODEL}),
    "CorralModelWaitingForCapacity": ([phase("WaitingForCapacity")], {"model": MODEL}),
    "CorralQueueNearlyFull": (queue(420), {}),
    "CorralRequestsRejected": ([rejected(0.1, "model_queue_full")], {"model": MODEL, "reason": "model_queue_full"}),
    "CorralConnectionsNearlyExhausted": (connections(900), POD),
    "CorralHighErrorRate": (_flat(requests(1, 200), requests(0.2, 500), incomplete(0)), {"model": MODEL}),
    "CorralSlowWake": (queue_times("corral_gateway_wake_seconds", 200), {"model": MODEL}),
    "CorralRunnerUnreachable": (
        [counter("corral_gateway_upstream_retries_total", 0.1, model=MODEL, reason="unreachable")],
        {"model": MODEL},
    ),
    "CorralRunnerStuck": (runner(running=1, tokens=0), {"model": MODEL, "pod": "model-tiny-1"}),
    "CorralGPUFailed": ([counter("corral_operator_gpu_failures_total", 0.005)], {}),
    "CorralGPUHot": ([temperature(91)], GPU),
    "CorralRunnerUnresponsive": ([gauge("corral_operator_unresponsive_runners", 1, model=MODEL)], {"model": MODEL}),
    "CorralThrashing": ([counter("corral_operator_evictions_total", 0.02, reason="limit")], {}),
    "CorralOperatorWorkqueueDelayed": (
        histogram("corral_operator_workqueue_queue_duration_seconds", 1, 20, bounds=LATENCY_BUCKETS),
        {},
    ),
    "CorralOperatorKubeApiErrors": (
        [api_calls("operator", 0.1, "403")],
        {"verb": "patch", "resource": "models/status", "code": "403"},
    ),
    "CorralReconcileErrors": (
        [counter("corral_reconcile_errors_total", 0.03, model=MODEL, kind="internal")],
        {"model": MODEL},
    ),
    "CorralObjectsUnreadable": (
        [gauge("corral_gateway_unreadable_objects", 1, resource="models")],
        {"resource": "models"},
    ),
    "CorralGatewayPeersUnreachable": (
        [gauge("corral_gateway_peers", 2, **POD), gauge("corral_gateway_peers_reporting", 1, **POD)],
        POD,
    ),
    "CorralGatewayKubeApiErrors": (
        [api_calls("gateway", 0.05, "error")],
        {"verb": "patch", "resource": "models/status", "code": "error"},
    ),
}
NAMED = {str(rule["alert"]): rule for rule in RULES}


@pytest.mark.parametrize("alert", sorted(NAMED))
def test_an_alert_fires_in_its_situation(alert: str) -> None:
    situation, labels = SITUATIONS[alert]
    found = [
        {name: value for name, value in one.items() if name != "__name__"}
        for one in firing_alerts(NAMED[alert], situation)
    ]
    assert found == [labels]
    spoken = re.findall(r"\$labels\.(\w+)", str(NAMED[alert]["annotations"]))
    assert set(spoken) <= labels.keys()


@pytest.mark.parametrize("alert", sorted(NAMED))
def test_no_alert_fires_in_normal_operation(alert: str) -> None:
    assert firing_alerts(NAMED[alert], NORMAL) == []


def test_incomplete_streams_count_as_errors() -> None:
    situation = _flat(requests(1, 200), incomplete(0.1))
    assert firing_alerts(NAMED["CorralHighErrorRate"], situation) == [{"model": MODEL}]


def test_wait_timeouts_count_as_rejections_and_not_as_errors() -> None:
    situation = _flat(requests(1, 200), requests(0.5, 504), incomplete(0, wait_timeouts=0.5))
    assert firing_alerts(NAMED["CorralHighErrorRate"], situation) == []
    assert firing_alerts(NAMED["CorralRequestsRejected"], situation) == [{"model": MODEL, "reason": "wait_timeout"}]


def test_missing_gateways_and_operators_fire_their_alerts() -> None:
    for alert in ("CorralGatewayDown", "CorralOperatorDown"):
        assert firing_alerts(NAMED[alert], []) == [{}]


@pytest.mark.parametrize(
    ("alert", "name"),
    [("CorralGatewayDown", "corral_gateway_synced"), ("CorralOperatorDown", "corral_operator_leader")],
)
def test_the_replacement_of_a_process_fires_no_alert(alert: str, name: str) -> None:
    minutes = float(str(NAMED[alert]["for"]).removesuffix("m"))
    for silent, fires in ((minutes - 1, False), (minutes + 6, True)):  # Prometheus itself waits for five minutes
        found = firing_alerts(NAMED[alert], [ending_at(gauge(name, 1), END - 60 * silent)])
        assert bool(found) == fires
