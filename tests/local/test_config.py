from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.base.durations import FOREVER
from corral_core.base.errors import InvalidSetting
from corral_server.local.config import LocalConfig


def test_defaults_are_ollamas() -> None:
    config = LocalConfig.from_environment({})
    assert (config.gateway.host, config.gateway.port) == ("127.0.0.1", 11434)
    assert (config.policy.keep_alive, config.policy.loaded_limit) == (300.0, 3)


def test_ollamas_settings_apply() -> None:
    environ = {
        "OLLAMA_HOST": "0.0.0.0:9999",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_LOAD_TIMEOUT": "0",
        "CORRAL_PVC_ROOT": "/data",
    }
    config = LocalConfig.from_environment(environ)
    assert (config.gateway.host, config.gateway.port) == ("0.0.0.0", 9999)
    assert (config.policy.keep_alive, config.policy.loaded_limit) == (FOREVER, 1)
    assert config.runner.load_timeout == FOREVER
    assert config.runner.pvc_root == Path("/data")


def test_the_command_line_overrides_the_environment() -> None:
    config = LocalConfig.from_environment({"OLLAMA_HOST": "0.0.0.0:9999"}, host="127.0.0.1", port=0)
    assert (config.gateway.host, config.gateway.port) == ("127.0.0.1", 0)


def test_runners_inherit_the_environment() -> None:
    environ = {"OLLAMA_NUM_PARALLEL": "2"}
    assert LocalConfig.from_environment(environ).runner.environment == environ


def test_an_invalid_number_names_its_setting() -> None:
    with pytest.raises(InvalidSetting, match="OLLAMA_MAX_LOADED_MODELS='many'"):
        LocalConfig.from_environment({"OLLAMA_MAX_LOADED_MODELS": "many"})


@pytest.mark.parametrize(("text", "verbose"), [("", False), ("0", False), ("1", True), ("true", True), ("2", True)])
def test_ollama_debug_sets_verbose(text: str, verbose: bool) -> None:
    assert LocalConfig.from_environment({"OLLAMA_DEBUG": text}).verbose is verbose
