"""A runner's settings: the Model's own word, then its parameters', then the environment's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.activity import FOREVER
from corral_core.errors import CorralError, InvalidModel, InvalidSetting
from corral_server.runner.config import RunnerConfig, from_environment
from corral_server.runner.told import termination_log_of


def config(settings: Mapping[str, str] = {}, **spec: object) -> RunnerConfig:
    document = {"name": "tiny", "namespace": "team", "spec": {"source": "file:///tiny.gguf", **spec}}
    return from_environment({"CORRAL_MODEL": json.dumps(document), **settings})


def test_the_defaults() -> None:
    plain = config()
    assert (plain.model.key, plain.host, plain.port) == ("team/tiny", "0.0.0.0", 8080)
    assert (plain.listen_fd, plain.parent_fd, plain.drain_timeout) == (None, None, 60.0)
    assert (plain.keep_alive.seconds, plain.pvc_root) == (300.0, Path("/weights"))
    assert (plain.engine.context_length, plain.engine.slots, plain.engine.threads) == (0, 0, 0)
    assert (plain.engine.gpu_layers, plain.engine.cache_type, plain.engine.flash_attention) == (0, "f16", None)


def test_the_models_context_wins_over_its_parameters_and_the_environment() -> None:
    parameters = {"num_ctx": 1024}
    settings = {"OLLAMA_CONTEXT_LENGTH": "2048"}
    assert config(settings, contextLength=512, parameters=parameters).engine.context_length == 512
    assert config(settings, parameters=parameters).engine.context_length == 1024
    assert config(settings).engine.context_length == 2048


def test_parallel_wins_over_the_environment() -> None:
    assert config({"OLLAMA_NUM_PARALLEL": "2"}, parallel=3).engine.slots == 3
    assert config({"OLLAMA_NUM_PARALLEL": "2"}).engine.slots == 2


def test_keep_alive_of_the_model_wins_over_the_environment() -> None:
    assert config({"OLLAMA_KEEP_ALIVE": "10m"}, keepAlive="1m").keep_alive.seconds == 60.0
    assert config({"OLLAMA_KEEP_ALIVE": "10m"}).keep_alive.seconds == 600.0
    assert config({"OLLAMA_KEEP_ALIVE": "-1"}).keep_alive.seconds == FOREVER
    assert config({"OLLAMA_KEEP_ALIVE": "1d"}).keep_alive.seconds == 300.0


def test_bounds_hold_the_default_too() -> None:
    bounded = config(keepAliveMin="10m", keepAliveMax="20m")
    assert bounded.keep_alive.seconds == 600.0
    assert bounded.keep_alive.begun(FOREVER).seconds == 1200.0


def test_layers_go_to_the_gpu_only_when_the_model_has_one() -> None:
    assert config(gpu={"count": 1}).engine.gpu_layers == -1
    assert config(gpu={"count": 1}, parameters={"num_gpu": 7}).engine.gpu_layers == 7
    assert config(parameters={"num_gpu": 7}).engine.gpu_layers == 0


def test_ollamas_settings_of_the_cache() -> None:
    settings = {"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "1", "CORRAL_THREADS": "3"}
    tuned = config(settings).engine
    assert (tuned.cache_type, tuned.flash_attention, tuned.threads) == ("q8_0", True, 3)


def test_speculation_locking_and_warming_up_are_off_until_they_are_set() -> None:
    plain = config().engine
    assert (plain.draft, plain.lock, plain.warm_up) == (0, False, False)
    tuned = config({"CORRAL_SPECULATION": "6", "CORRAL_LOCK_MEMORY": "1", "CORRAL_WARM_UP": "true"}).engine
    assert (tuned.draft, tuned.lock, tuned.warm_up) == (6, True, True)
    assert config({"CORRAL_SPECULATION": "6"}, parameters={"draft_num_predict": 2}).engine.draft == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORRAL_PORT", "70000"),
        ("CORRAL_LISTEN_FD", "-4"),
        ("OLLAMA_KV_CACHE_TYPE", "q3"),
        ("OLLAMA_NUM_PARALLEL", "many"),
        ("CORRAL_DRAIN_TIMEOUT", "1d"),
        ("OLLAMA_FLASH_ATTENTION", "maybe"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{name}='{value}'"):
        config({name: value})


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_model_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="CORRAL_MODEL"):
        from_environment({"CORRAL_MODEL": text})


def test_a_model_that_breaks_its_schema_is_refused_with_the_field() -> None:
    with pytest.raises(InvalidModel, match=r"spec\.parallel"):
        config(parallel=-1)


def test_without_a_model_it_is_an_error() -> None:
    with pytest.raises(CorralError):
        from_environment({})


def test_the_termination_log_is_the_named_file(tmp_path: Path) -> None:
    assert termination_log_of({"CORRAL_TERMINATION_LOG": str(tmp_path / "log")}) == tmp_path / "log"
