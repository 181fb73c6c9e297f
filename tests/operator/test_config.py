"""The operator's settings from the environment."""

from __future__ import annotations

import json

import pytest

from corral_core.activity import FOREVER
from corral_core.errors import InvalidSetting
from corral_operator.config import from_environment


def test_an_empty_environment_gives_ollamas_defaults() -> None:
    config = from_environment({})
    assert config.policy.keep_alive == 300.0
    assert config.policy.loaded_limit == 3
    assert config.namespaces == ()
    assert config.runner.image == "corral/runner:dev"


def test_settings_of_the_installation_reach_the_runners() -> None:
    config = from_environment({"OLLAMA_KEEP_ALIVE": "2h", "OLLAMA_NUM_PARALLEL": "4", "HOME": "/root"})
    assert config.runner.settings == {"OLLAMA_KEEP_ALIVE": "2h", "OLLAMA_NUM_PARALLEL": "4"}
    assert config.policy.keep_alive == 7200.0


def test_namespaces_are_a_comma_list() -> None:
    assert from_environment({"CORRAL_WATCH_NAMESPACES": "red, blue"}).namespaces == ("red", "blue")


def test_a_load_timeout_of_zero_or_less_is_endless_patience() -> None:
    assert from_environment({"OLLAMA_LOAD_TIMEOUT": "0"}).policy.load_timeout == FOREVER
    assert from_environment({"OLLAMA_LOAD_TIMEOUT": "90s"}).policy.load_timeout == 90.0


def test_a_bad_value_is_refused_with_the_variables_name() -> None:
    with pytest.raises(InvalidSetting, match="OLLAMA_MAX_LOADED_MODELS"):
        from_environment({"OLLAMA_MAX_LOADED_MODELS": "many"})


def test_every_process_is_told_apart_by_default() -> None:
    assert from_environment({}).lease.identity
    assert from_environment({"CORRAL_OPERATOR_ID": "one"}).lease.identity == "one"


def test_variables_for_every_runner_are_a_json_list() -> None:
    one = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    assert from_environment({"CORRAL_RUNNER_ENV": json.dumps([one])}).runner.env == (one,)
    for wrong in ("{}", "[1]", '[{"value": "x"}]', "A=b"):
        with pytest.raises(InvalidSetting, match="CORRAL_RUNNER_ENV"):
            from_environment({"CORRAL_RUNNER_ENV": wrong})
