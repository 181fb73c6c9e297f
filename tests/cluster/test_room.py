"""One place for two Models: who is loaded makes room for who is waited for, and nobody's answer is cut."""

from __future__ import annotations

import pytest

from tests.cluster.processes import LOOK, WAKE, Answer, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
ONE = {"OLLAMA_MAX_LOADED_MODELS": "1"}
LONG = 400
"""Tokens of an answer that takes seconds."""


def test_an_idle_model_makes_room_and_comes_back_when_it_is_asked_for(corral: Installation) -> None:
    corral.start_operator(**ONE)
    gateway = corral.start_gateway()
    corral.add("one")
    corral.add("two")
    for name, other in (("one", "two"), ("two", "one"), ("one", "two")):
        assert corral.ask(gateway, name).result(WAKE).done is not None
        assert corral.replicas(name) == 1
        assert corral.replicas(other) == 0


def test_a_busy_model_ends_its_answer_takes_no_new_one_and_makes_room(corral: Installation) -> None:
    corral.start_operator(**ONE)
    gateway = corral.start_gateway()
    corral.add("busy")
    corral.add("next")
    running = Answer()
    first = corral.ask(gateway, "busy", tokens=LONG, answer=running)
    until(lambda: running.chunks > 3, WAKE, what="an answer that runs")
    second = corral.ask(gateway, "next")
    until(lambda: corral.phase("busy") == "Draining", 15, what="that the busy one drains", interval=LOOK / 2)
    late = corral.ask(gateway, "busy")
    done = first.result(WAKE).done
    assert done is not None
    assert done.eval_count == LONG
    assert second.result(WAKE).done is not None
    assert late.result(WAKE).done is not None, "it waited, and was served when its turn came"
