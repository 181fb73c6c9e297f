"""Events for changes of phase."""

from __future__ import annotations

from corral_operator.observe.objects import parse_model_object
from corral_operator.report.events import phase_event
from tests.operator import samples
from tests.operator.samples import NOW


def message(phase: str) -> object:
    status = {"phase": phase, "conditions": [{"type": "Ready", "message": "the runner does this"}]}
    item = parse_model_object(samples.model())
    return phase_event(item, status, NOW, decision_reason="requests are pending")["message"]


def test_the_event_of_a_start_has_the_reason_of_the_decision() -> None:
    assert message("Loading") == "requests are pending; the runner does this"


def test_the_events_of_other_phases_have_the_message_of_the_last_condition() -> None:
    assert message("Ready") == "the runner does this"
