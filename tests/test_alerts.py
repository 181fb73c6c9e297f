"""Every alert fires in the situation that it names, and in no ordinary one: asked of Prometheus' own engine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest

from corral_core.metrics import LATENCY
from tests.support.promql import HOURS, Line, ended, firing, level, observed, rising
from tests.test_monitoring import RULES

MODEL = "lab/tiny"
POD = {"pod": "corral-gateway-1"}
Situation = Sequence[Line]


def _flat(*parts: Line | list[Line]) -> Situation:
    return [line for part in parts for line in (part if isinstance(part, list) else [part])]


def requests(rate: float, code: int, model: str = MODEL) -> Line:
    return rising("corral_gateway_requests_total", rate, model=model, api="/api/chat", code=str(code), **POD)


def broken(rate: float, too_long: float = 0.0) -> list[Line]:
    """Answers that broke off, beside requests that waited too long."""
    told = rising("corral_gateway_broken_answers_total", rate, model=MODEL, **POD)
    return [told, refused(too_long, "waited_too_long")]


def refused(rate: float, reason: str) -> Line:
    return rising("corral_gateway_refused_total", rate, model=MODEL, reason=reason, **POD)


def phase(name: str) -> Line:
    return level("corral_operator_model_phase", 1, model=MODEL, phase=name)


def calls(process: str, rate: float, code: str) -> Line:
    name = f"corral_{process}_api_requests_total"
    return rising(name, rate, verb="patch", resource="models/status", code=code)


def waits(name: str, seconds: float) -> list[Line]:
    return observed(name, 0.1, seconds, bounds=LATENCY, model=MODEL)


def runner(*, running: float, tokens: float) -> list[Line]:
    named = {"model": MODEL, "pod": "model-tiny-1"}
    return [
        level("corral_runner_sequences_running", running, **named),
        rising("corral_runner_generated_tokens_total", tokens, **named),
        rising("corral_runner_prompt_tokens_total", 0, **named),
    ]


def queue(waiting: float) -> list[Line]:
    gateways = [level("corral_gateway_waiting", waiting / 2, model=MODEL, pod=pod) for pod in ("a", "b")]
    return [*gateways, level("corral_gateway_queue_limit", 512, **POD)]


def connections(here: float) -> list[Line]:
    return [level("corral_gateway_connections", here, **POD), level("corral_gateway_connection_limit", 1000, **POD)]


ORDINARY: Situation = _flat(
    level("corral_gateway_settled", 1, **POD),
    level("corral_operator_acting", 1),
    level("corral_operator_acting", 0, pod="the one that stands by"),
    phase("Ready"),
    level("corral_operator_runners_unheard", 0, model=MODEL),
    queue(100),
    connections(100),
    level("corral_gateway_peers", 2, **POD),
    level("corral_gateway_peers_heard", 2, **POD),
    requests(2, 200),
    requests(0.05, 500),
    requests(1, 503),
    requests(1, 499),
    requests(5, 404, model=""),
    broken(0.01),
    *(refused(0, reason) for reason in ("queue_full", "line_full", "unavailable")),
    *(
        rising("corral_gateway_upstream_retries_total", rate, model=MODEL, reason=reason)
        for reason, rate in (("unreachable", 0.0), ("not_ready", 0.2))
    ),
    waits("corral_gateway_wake_seconds", 20),
    observed("corral_operator_workqueue_queue_seconds", 1, 0.5, bounds=LATENCY),
    runner(running=2, tokens=100),
    rising("corral_operator_evictions_total", 0.005, reason="room"),
    rising("corral_operator_evictions_total", 1.0, reason="expired"),
    calls("operator", 5, "200"),
    calls("operator", 0.5, "409"),
    calls("gateway", 5, "200"),
)

BAD: Mapping[str, tuple[Situation, Mapping[str, str]]] = {
    "CorralGatewayDown": ([level("corral_gateway_settled", 0, **POD)], {}),
    "CorralOperatorDown": ([level("corral_operator_acting", 0)], {}),
    "CorralModelFailed": ([phase("Failed")], {"model": MODEL}),
    "CorralModelWaitsForCapacity": ([phase("WaitingForCapacity")], {"model": MODEL}),
    "CorralQueueNearlyFull": (queue(420), {}),
    "CorralRequestsRefused": ([refused(0.1, "line_full")], {"model": MODEL, "reason": "line_full"}),
    "CorralConnectionsNearlyUsedUp": (connections(900), POD),
    "CorralErrors": (_flat(requests(1, 200), requests(0.2, 500), broken(0)), {"model": MODEL}),
    "CorralSlowWake": (waits("corral_gateway_wake_seconds", 200), {"model": MODEL}),
    "CorralRunnerUnreachable": (
        [rising("corral_gateway_upstream_retries_total", 0.1, model=MODEL, reason="unreachable")],
        {"model": MODEL},
    ),
    "CorralRunnerStuck": (runner(running=1, tokens=0), {"model": MODEL, "pod": "model-tiny-1"}),
    "CorralRunnerUnheard": ([level("corral_operator_runners_unheard", 1, model=MODEL)], {"model": MODEL}),
    "CorralThrashing": ([rising("corral_operator_evictions_total", 0.02, reason="limit")], {}),
    "CorralOperatorBehind": (observed("corral_operator_workqueue_queue_seconds", 1, 20, bounds=LATENCY), {}),
    "CorralOperatorCallsFail": (
        [calls("operator", 0.1, "403")],
        {"verb": "patch", "resource": "models/status", "code": "403"},
    ),
    "CorralGatewaysApart": (
        [level("corral_gateway_peers", 2, **POD), level("corral_gateway_peers_heard", 1, **POD)],
        POD,
    ),
    "CorralGatewayCallsFail": (
        [calls("gateway", 0.05, "error")],
        {"verb": "patch", "resource": "models/status", "code": "error"},
    ),
}
NAMED = {str(rule["alert"]): rule for rule in RULES}


@pytest.mark.parametrize("alert", sorted(NAMED))
def test_an_alert_fires_in_its_situation(alert: str) -> None:
    situation, labels = BAD[alert]
    found = [
        {name: value for name, value in one.items() if name != "__name__"} for one in firing(NAMED[alert], situation)
    ]
    assert found == [labels]
    spoken = re.findall(r"\$labels\.(\w+)", str(NAMED[alert]["annotations"]))
    assert set(spoken) <= labels.keys()


@pytest.mark.parametrize("alert", sorted(NAMED))
def test_an_alert_is_silent_in_ordinary_times(alert: str) -> None:
    assert firing(NAMED[alert], ORDINARY) == []


def test_streams_that_break_off_are_errors_though_no_code_says_so() -> None:
    situation = _flat(requests(1, 200), broken(0.1))
    assert firing(NAMED["CorralErrors"], situation) == [{"model": MODEL}]


def test_requests_that_waited_too_long_are_refused_and_no_errors_though_their_code_is_504() -> None:
    situation = _flat(requests(1, 200), requests(0.5, 504), broken(0, too_long=0.5))
    assert firing(NAMED["CorralErrors"], situation) == []
    assert firing(NAMED["CorralRequestsRefused"], situation) == [{"model": MODEL, "reason": "waited_too_long"}]


def test_no_gateway_and_no_operator_at_all_are_noticed() -> None:
    for alert in ("CorralGatewayDown", "CorralOperatorDown"):
        assert firing(NAMED[alert], []) == [{}]


@pytest.mark.parametrize(
    ("alert", "name"),
    [("CorralGatewayDown", "corral_gateway_settled"), ("CorralOperatorDown", "corral_operator_acting")],
)
def test_a_process_that_is_replaced_wakes_nobody(alert: str, name: str) -> None:
    minutes = float(str(NAMED[alert]["for"]).removesuffix("m"))
    for silent, fires in ((minutes - 1, False), (minutes + 6, True)):  # Prometheus itself waits for five minutes
        found = firing(NAMED[alert], [ended(level(name, 1), HOURS - 60 * silent)])
        assert bool(found) == fires
