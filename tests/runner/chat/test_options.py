"""Options: precedence, types, and values out of the engine's range."""

from __future__ import annotations

import logging

import pytest

from corral_server.runner.chat.options import LOAD_OPTIONS, REQUEST_OPTIONS, GenerationOptions
from corral_server.wire.errors import ApiError
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import runner_state

_WRONG = {"integer": "x", "float32": "x", "boolean": 1, "array": "x"}


def test_the_defaults_are_ollamas() -> None:
    options = GenerationOptions()
    sampling = options.sampling
    assert (options.num_predict, options.num_keep, options.stop) == (-1, 4, ())
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.8, 40, 0.9, 0.0)
    assert (sampling.repeat_last_n, sampling.repeat_penalty, sampling.typical_p) == (64, 1.0, 1.0)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.seed) == (0.0, 0.0, -1)


def test_merged_options_override_and_others_stay() -> None:
    options = GenerationOptions().merged({"temperature": 0.1, "top_k": 5}).merged({"temperature": 0.7, "seed": None})
    assert (options.sampling.temperature, options.sampling.top_k, options.sampling.seed) == (0.7, 5, -1)


@pytest.mark.parametrize("name", sorted(REQUEST_OPTIONS))
def test_every_request_option_is_applied(name: str) -> None:
    kind = REQUEST_OPTIONS[name]
    value: object = ["a"] if kind == "array" else 0.25 if kind == "float32" else 3
    options = GenerationOptions().merged({name: value})
    taken = getattr(options, name, None) if hasattr(options, name) else getattr(options.sampling, name)
    assert taken == (("a",) if kind == "array" else value)


@pytest.mark.parametrize(("name", "kind"), sorted({**LOAD_OPTIONS, **REQUEST_OPTIONS}.items()))
def test_a_wrong_type_is_refused_with_ollamas_text(name: str, kind: str) -> None:
    with pytest.raises(ApiError) as caught:
        GenerationOptions().merged({name: _WRONG[kind]})
    assert (caught.value.status, caught.value.message) == (500, f'option "{name}" must be of type {kind}')


def test_load_options_change_nothing() -> None:
    assert GenerationOptions().merged({"num_batch": 99, "use_mmap": True}) == GenerationOptions()


@pytest.mark.parametrize(("num_ctx", "length"), [(0, 64), (99, 64), (10**30, 64), (12, 12), (3, 4), (-(10**30), 4)])
def test_num_ctx_is_honoured_up_to_the_context_of_a_slot(num_ctx: int, length: int) -> None:
    loaded = runner_state(FakeEngine(context_length=64)).require_loaded()
    assert loaded.context_length(loaded.options.merged({"num_ctx": num_ctx})) == length


def test_an_unknown_option_is_logged_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert GenerationOptions().merged({"mirostat": 1}) == GenerationOptions()
    assert "invalid option provided: mirostat" in caplog.text


def test_a_bool_is_not_a_number() -> None:
    with pytest.raises(ApiError, match="must be of type integer"):
        GenerationOptions().merged({"top_k": True})


def test_fractions_of_integers_are_cut_off() -> None:
    assert GenerationOptions().merged({"top_k": 4.9}).sampling.top_k == 4


def test_stop_accepts_only_strings_and_drops_empty_ones() -> None:
    assert GenerationOptions().merged({"stop": ["a", "", "b"]}).stop == ("a", "b")
    with pytest.raises(ApiError, match="must be of an array of strings"):
        GenerationOptions().merged({"stop": ["a", 1]})


def test_huge_numbers_are_clamped_to_the_engines_range() -> None:
    options = GenerationOptions().merged(
        {"top_k": 10**30, "temperature": 10**400, "seed": 2**40 + 7, "num_predict": -(10**30)}
    )
    assert options.sampling.top_k == 2**31 - 1
    assert options.sampling.temperature == pytest.approx(3.4e38)
    assert options.sampling.seed == 7
    assert options.num_predict == -(2**31) + 1


def test_seed_minus_one_is_unchanged() -> None:
    assert GenerationOptions().merged({"seed": -1}).sampling.seed == -1
    assert GenerationOptions().merged({"seed": -2}).sampling.seed == 2**32 - 2
