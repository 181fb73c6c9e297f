"""Argo CD's health script for Models, run by Lua 5.1 as in Argo CD, over statuses that the operator writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from lupa.lua51 import LuaRuntime

from corral_core.base.json_fields import JsonObject
from corral_core.planning.snapshot import Decision
from corral_operator.report.status import failed_status, model_status
from corral_operator.report.view import ModelView
from tests.operator.report.test_placement import NONE, TWO
from tests.operator.report.test_placement import view as gpu_view
from tests.operator.report.test_readiness import POSTPONED, PULLING, REJECTED, UNSUITABLE, WAITS
from tests.operator.report.test_status import CRASHED, IDLE, RUN, UNSCHEDULABLE, pod, uninspected, view
from tests.operator.samples import NOW

SCRIPT = Path(__file__).resolve().parents[3] / "examples/argocd/model-health.lua"


def health(status: JsonObject, *, generation: int = 1) -> tuple[str, str]:
    """Return status and message that the script gives a Model with this status."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    run = cast("Callable[[Any], Mapping[str, str]]", lua.eval(f"function(obj) {SCRIPT.read_text()} end"))
    model = {"metadata": {"generation": generation}, "status": status}
    table = lua.table_from(model, recursive=True)
    found = run(table)
    return found["status"], found["message"]


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (view(IDLE), "Healthy"),
        (view(RUN), "Healthy"),
        (view(RUN, pod()), "Healthy"),
        (view(WAITS), "Healthy"),
        (view(IDLE, pod(deleted=True)), "Healthy"),
        (POSTPONED, "Healthy"),
        (uninspected(), "Progressing"),
        (uninspected({"phase": "Pending"}), "Progressing"),
        (PULLING, "Progressing"),
        (view(RUN, pod(ready=False, failure=UNSCHEDULABLE)), "Progressing"),
        (view(Decision(1, "kept"), pod(ready=False), minReplicas=1), "Progressing"),
        (view(RUN, pod(ready=False, failure=CRASHED)), "Degraded"),
        (view(UNSUITABLE), "Degraded"),
        (view(None, source="nonsense"), "Degraded"),
        (replace(view(RUN, pod()), rejected_object=REJECTED), "Degraded"),
        (gpu_view(TWO, NONE), "Degraded"),
        (view(IDLE, suspend=True), "Suspended"),
        (view(IDLE, replicas=0), "Suspended"),
    ],
)
def test_the_health_follows_from_the_conditions(subject: ModelView, expected: str) -> None:
    status, message = health(model_status(subject, NOW))
    assert status == expected
    assert message


def test_the_message_says_what_a_model_waits_for() -> None:
    assert health(model_status(PULLING, NOW))[1] == "pulling 93.8 MiB"


def test_a_model_that_the_operator_cannot_process_is_degraded() -> None:
    processed = view(IDLE, status=model_status(view(IDLE), NOW))
    status, message = health(failed_status(processed.item, "OverflowError: a number", NOW))
    assert status == "Degraded"
    assert "OverflowError: a number" in message


def test_a_model_is_progressing_until_the_operator_has_processed_it() -> None:
    assert health({})[0] == "Progressing"
    assert health(model_status(view(IDLE), NOW), generation=2)[0] == "Progressing"
