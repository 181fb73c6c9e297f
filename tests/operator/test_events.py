"""What a change of phase tells people."""

from __future__ import annotations

from corral_operator.events import phase_event
from corral_operator.objects import parse_model_object
from tests.operator import samples

NOW = 1_800_000_000.0


def message(phase: str, *, decided: str) -> object:
    status = {"phase": phase, "conditions": [{"type": "Ready", "message": "the runner does this"}]}
    return phase_event(parse_model_object(samples.model()), status, NOW, decided=decided)["message"]


def test_the_event_of_a_start_says_why_it_was_started() -> None:
    assert message("Loading", decided="requests wait") == "requests wait; the runner does this"


def test_other_phases_are_explained_by_their_last_condition() -> None:
    assert message("Ready", decided="requests wait") == "the runner does this"
