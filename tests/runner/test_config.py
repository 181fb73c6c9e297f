"""Configuration of a runner. Precedence: the Model's spec, its parameters, the environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.base.durations import FOREVER
from corral_core.base.errors import CorralError, InvalidModel, InvalidSetting, SourceError
from corral_core.contracts.source_defaults import SourceDefaults
from corral_core.sources.locate import WeightsRoots
from corral_core.sources.snapshot import FileRole
from corral_server.runner.config import RunnerConfig, from_environment
from corral_server.runner.engine.contexts import GPUOptions
from corral_server.runner.images.limits import DEFAULT_LIMITS, ImageLimits
from corral_server.runner.lifecycle.environment import termination_log_from
from tests.support.pulled_store import publish, store_settings

URI = "ollama://registry.example.com/library/tiny:latest"


def config(settings: Mapping[str, str] = {}, **spec: object) -> RunnerConfig:
    document = {"name": "tiny", "namespace": "team", "spec": {"source": "file:///tiny.gguf", **spec}}
    return from_environment({"CORRAL_MODEL": json.dumps(document), **settings})


def test_the_defaults() -> None:
    plain = config()
    assert (plain.model.key, plain.host, plain.port) == ("team/tiny", "0.0.0.0", 8080)
    assert (plain.listen_fd, plain.parent_fd, plain.drain_timeout) == (None, None, 600.0)
    assert (plain.keep_alive.seconds, plain.roots.claim) == (300.0, Path("/weights"))
    assert (plain.engine.context_length, plain.engine.slots, plain.engine.threads) == (0, 0, 0)
    assert (plain.engine.gpu, plain.engine.cache_type, plain.engine.flash_attention) == (GPUOptions(None), "f16", None)


def test_the_specs_context_overrides_parameters_and_environment() -> None:
    parameters = {"num_ctx": 1024}
    settings = {"OLLAMA_CONTEXT_LENGTH": "2048"}
    assert config(settings, contextLength=512, parameters=parameters).engine.context_length == 512
    assert config(settings, parameters=parameters).engine.context_length == 1024
    assert config(settings).engine.context_length == 2048


def pulled(tmp_path: Path, defaults: SourceDefaults) -> dict[str, str]:
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"GGUF")
    snapshot = publish(tmp_path / "store", URI, {weights: FileRole.WEIGHTS}, defaults=defaults)
    return store_settings(tmp_path / "store", snapshot)


def test_parameters_of_the_source_are_below_the_specs_and_above_the_environment(tmp_path: Path) -> None:
    settings = {"OLLAMA_CONTEXT_LENGTH": "2048", **pulled(tmp_path, SourceDefaults(parameters={"num_ctx": 1024}))}
    assert config(settings, source=URI).engine.context_length == 1024
    assert config(settings, source=URI, parameters={"num_ctx": 512}).engine.context_length == 512


def test_a_template_of_the_source_that_cannot_be_used_is_left_out(tmp_path: Path) -> None:
    broken = config(pulled(tmp_path, SourceDefaults(template="{{ range .Messages }}{{ nope .Role }}")), source=URI)
    assert (broken.model.spec.template, broken.defaults.template) == (None, "")
    kept = config(pulled(tmp_path, SourceDefaults(template="{{ .Prompt }}")), source=URI)
    assert kept.model.spec.template == "{{ .Prompt }}"


def test_a_damaged_snapshot_is_an_error(tmp_path: Path) -> None:
    settings = pulled(tmp_path, SourceDefaults())
    next((tmp_path / "store" / "snapshots").glob("*/snapshot.json")).write_text("{")
    with pytest.raises(SourceError, match=r"snapshot\.json cannot be read"):
        config(settings, source=URI)


def test_the_specs_parallel_overrides_the_environment() -> None:
    assert config({"OLLAMA_NUM_PARALLEL": "2"}, parallel=3).engine.slots == 3
    assert config({"OLLAMA_NUM_PARALLEL": "2"}).engine.slots == 2


def test_the_specs_keep_alive_overrides_the_environment() -> None:
    assert config({"OLLAMA_KEEP_ALIVE": "10m"}, keepAlive="1m").keep_alive.seconds == 60.0
    assert config({"OLLAMA_KEEP_ALIVE": "10m"}).keep_alive.seconds == 600.0
    assert config({"OLLAMA_KEEP_ALIVE": "-1"}).keep_alive.seconds == FOREVER
    assert config({"OLLAMA_KEEP_ALIVE": "1d"}).keep_alive.seconds == 300.0


def test_keep_alive_bounds_apply_to_the_default() -> None:
    bounded = config(keepAliveMin="10m", keepAliveMax="20m")
    assert bounded.keep_alive.seconds == 600.0
    assert bounded.keep_alive.request_started(FOREVER).seconds == 1200.0


def test_the_specs_gpus_are_the_engines() -> None:
    assert config(gpu={"count": 0}, parameters={"num_gpu": 7}).engine.gpu.count == 0
    assert config(gpu={"offload": "none"}).engine.gpu.count == 0
    own = {
        "count": 2,
        "offload": "full",
        "splitMode": "none",
        "mainGPU": 1,
        "tensorSplit": [3, 1],
        "expertLayersOnCPU": 4,
    }
    tuned = config({"OLLAMA_GPU_OVERHEAD": "1000"}, gpu=own, parameters={"num_gpu": 7}).engine.gpu
    assert tuned == GPUOptions(
        2,
        "full",
        layers=7,
        split_mode="none",
        main_gpu=1,
        tensor_split=(3.0, 1.0),
        expert_layers_on_cpu=4,
        reserved=1000,
    )


def test_the_specs_kv_cache_and_attention_override_the_environment() -> None:
    settings = {"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "1"}
    tuned = config(settings, kvCacheType="bf16", flashAttention="disabled").engine
    assert (tuned.cache_type, tuned.flash_attention) == ("bf16", False)
    assert config(settings, flashAttention="auto").engine.flash_attention is None


def test_ollamas_settings_of_the_kv_cache() -> None:
    settings = {"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "1", "CORRAL_THREADS": "3"}
    tuned = config(settings).engine
    assert (tuned.cache_type, tuned.flash_attention, tuned.threads) == ("q8_0", True, 3)


def test_templates_of_requests_are_accepted_unless_the_installation_refuses_them() -> None:
    assert config({}).accepts_templates
    assert not config({"CORRAL_CLIENT_TEMPLATES": "0"}).accepts_templates


def test_the_limits_of_images_can_be_set() -> None:
    assert config({}).image_limits == DEFAULT_LIMITS
    settings = {"CORRAL_MAX_IMAGES": "2", "CORRAL_MAX_IMAGE_BYTES": "1000", "CORRAL_MAX_IMAGE_PIXELS": "99"}
    assert config(settings).image_limits == ImageLimits(count=2, bytes=1000, pixels=99)


def test_speculation_locking_and_warm_up_are_off_by_default() -> None:
    plain = config().engine
    assert (plain.draft_tokens, plain.lock_weights, plain.warm_up) == (0, False, False)
    tuned = config({"CORRAL_SPECULATION": "6", "CORRAL_LOCK_MEMORY": "1", "CORRAL_WARM_UP": "true"}).engine
    assert (tuned.draft_tokens, tuned.lock_weights, tuned.warm_up) == (6, True, True)
    assert config({"CORRAL_SPECULATION": "6"}, parameters={"draft_num_predict": 2}).engine.draft_tokens == 2


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
def test_an_invalid_setting_is_named_with_its_value(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=f"{name}='{value}'"):
        config({name: value})


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_model_that_is_not_a_json_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="CORRAL_MODEL"):
        from_environment({"CORRAL_MODEL": text})


def test_an_invalid_field_of_the_model_is_named() -> None:
    with pytest.raises(InvalidModel, match=r"spec\.parallel"):
        config(parallel=-1)


def test_a_missing_model_is_an_error() -> None:
    with pytest.raises(CorralError):
        from_environment({})


def test_the_termination_log_is_the_configured_file(tmp_path: Path) -> None:
    assert termination_log_from({"CORRAL_TERMINATION_LOG": str(tmp_path / "log")}) == tmp_path / "log"


def test_the_roots_of_weights(tmp_path: Path) -> None:
    assert config().roots == WeightsRoots()
    settings = {"CORRAL_PVC_ROOT": "/data", "CORRAL_STORE": str(tmp_path), "CORRAL_SNAPSHOTS": '{"hf://a/b": "0a"}'}
    assert config(settings).roots == WeightsRoots(Path("/data"), tmp_path, {"hf://a/b": "0a"})
    assert config({"CORRAL_IMAGE_PATH": "models/a"}).roots == WeightsRoots(image_path="models/a")


@pytest.mark.parametrize("value", ["x", "[]", '{"hf://a/b": 1}'])
def test_invalid_snapshots_are_an_error(value: str) -> None:
    with pytest.raises(InvalidSetting, match="CORRAL_SNAPSHOTS"):
        config({"CORRAL_SNAPSHOTS": value})
