"""What runners take by the estimate, and how they are told to load."""

from __future__ import annotations

import dataclasses

from corral_core.estimate import estimate
from corral_core.load import Load
from corral_server.local.files import Listed
from corral_server.local.sizes import Sizes
from tests.core.test_estimate import SMOLLM2
from tests.local.parts import listed, model
from tests.operator.samples import FACTS

FOUR, ONE = (estimate(SMOLLM2, Load(4096, parallel)).total for parallel in (4, 1))
ROOM = 1 << 40
KEY = "default/m"


def looked(made: Listed, *, capacity: int = ROOM, **environ: str) -> Sizes:
    sizes = Sizes(environ)
    sizes.look([made], running=(), capacity=capacity)
    return sizes


def test_a_model_takes_what_is_estimated_with_its_adapters_and_the_environment() -> None:
    facts = dataclasses.replace(FACTS, adapters_size=5 << 20)
    made = listed(model(spec={"contextLength": 2048}), facts=facts)
    assert looked(made).sizes == {KEY: estimate(SMOLLM2, Load(2048, 4)).total + (5 << 20)}
    alone = looked(made, OLLAMA_NUM_PARALLEL="1")
    assert alone.sizes == {KEY: estimate(SMOLLM2, Load(2048, 1)).total + (5 << 20)}


def test_of_weights_that_are_not_known_or_settings_that_are_refused_nothing_is_said() -> None:
    for sizes in (looked(listed(model())), looked(listed(model(), facts=FACTS), OLLAMA_NUM_PARALLEL="many")):
        assert sizes.sizes == {}
        assert dict(sizes.settings(KEY)) == {}


def test_a_runner_is_told_to_serve_one_at_once_where_four_are_too_much() -> None:
    for capacity, size, settings in (
        (FOUR, FOUR, {}),
        (FOUR - 1, ONE, {"OLLAMA_NUM_PARALLEL": "1"}),
        (1, ONE, {"OLLAMA_NUM_PARALLEL": "1"}),
    ):
        sizes = looked(listed(model(), facts=FACTS), capacity=capacity)
        assert (sizes.sizes, dict(sizes.settings(KEY))) == ({KEY: size}, settings)


def test_a_number_that_the_model_gives_is_kept() -> None:
    sizes = looked(listed(model(spec={"parallel": 4}), facts=FACTS), capacity=1)
    assert (sizes.sizes, dict(sizes.settings(KEY))) == ({KEY: FOUR}, {})


def test_what_runs_is_left_as_it_is_until_it_is_edited_or_has_ended() -> None:
    made, edited = listed(model(), facts=FACTS), listed(model(edition=2), facts=FACTS)
    sizes = looked(made)
    sizes.look([made], running={KEY}, capacity=1)
    assert sizes.sizes == {KEY: FOUR}
    sizes.look([edited], running={KEY}, capacity=1)
    assert sizes.sizes == {KEY: ONE}
    sizes.look([edited], running=(), capacity=ROOM)
    assert sizes.sizes == {KEY: FOUR}


def test_a_removed_model_counts_while_it_has_a_runner() -> None:
    sizes = looked(listed(model(), facts=FACTS))
    sizes.look([], running={KEY}, capacity=ROOM)
    assert sizes.sizes == {KEY: FOUR}
    sizes.look([], running=(), capacity=ROOM)
    assert sizes.sizes == {}
