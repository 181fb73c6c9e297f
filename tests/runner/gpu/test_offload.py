"""Offload to one and several devices: where the layers go, what they take, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from corral_server.runner.engine.loading.offload import SPARE_BYTES
from tests.support.model_shapes import Architecture, write_sparse_gguf
from tests.support.vulkan import load_all, vulkan_environment

pytestmark = [pytest.mark.process, pytest.mark.vulkan]

DENSE = Architecture("llama", 512, 2048, heads=8, kv_heads=2, head=64, vocabulary=2048, layers=8)
"""9 MiB for each layer."""
EXPERTS = Architecture(
    "qwen3moe", 256, 512, heads=4, kv_heads=2, head=64, vocabulary=2048, layers=4, experts=(8, 2), expert=256
)
LARGE = Architecture("llama", 4096, 14336, heads=32, kv_heads=8, head=128, vocabulary=32000, layers=16)
"""416 MiB for each layer; one device of 2 GiB holds four."""
MIB = 1 << 20
LOG_ROUNDING = 6 * 10486
"""llama.cpp logs each of its buffers to 0.01 MiB."""
COPIES = 512 * 2048 * 4 + LOG_ROUNDING
"""Logits of a batch."""
Results = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Loaded:
    """A result of ``load_all`` for a model that was loaded."""

    layers: int
    total: int
    reason: str
    slots: int
    vram: int
    bytes: Mapping[str, int]
    predicted: Mapping[str, int]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Load every case in one process, which has two devices."""
    folder = tmp_path_factory.mktemp("offload")
    environment = vulkan_environment(tmp_path_factory.mktemp("backends"), devices=2)
    dense, experts = (str(write_sparse_gguf(folder, one)) for one in (DENSE, EXPERTS))
    large = str(write_sparse_gguf(tmp_path_factory.mktemp("large"), LARGE))
    one, load = {"count": 1}, {"context_length": 512, "slots": 1}
    cases: dict[str, dict[str, object]] = {
        "one": {"path": dense, "gpu": one, "options": load},
        "two": {"path": dense, "gpu": {"count": 2}, "options": load},
        "main": {"path": dense, "gpu": {"count": 2, "split_mode": "none", "main_gpu": 1}, "options": load},
        "no main": {"path": dense, "gpu": {"count": 1, "split_mode": "none", "main_gpu": 1}, "options": load},
        "shares": {"path": dense, "gpu": {"count": 2, "tensor_split": [3, 1]}, "options": load},
        "too many shares": {"path": dense, "gpu": {"count": 1, "tensor_split": [3, 1]}, "options": load},
        "experts": {"path": experts, "gpu": one, "options": load},
        "experts on the CPU": {"path": experts, "gpu": one | {"expert_layers_on_cpu": 3}, "options": load},
        "some layers": {"path": dense, "gpu": one | {"layers": 3}, "options": load},
        "no layers": {"path": dense, "gpu": one | {"layers": 0}, "options": load},
        "quantized cache": {"path": dense, "gpu": one, "options": load | {"cache_type": "q8_0"}},
        "missing": {"path": dense, "gpu": {"count": 3}, "options": load},
        "small": {"path": dense, "gpu": one | {"reserved": 1925 * MIB}, "options": load},
        "no room": {"path": dense, "gpu": one | {"reserved": 2047 * MIB}, "options": load},
        "full": {"path": dense, "gpu": one | {"offload": "full", "reserved": 2047 * MIB}, "options": load},
        "slots": {
            "path": dense,
            "gpu": one | {"reserved": 1800 * MIB},
            "options": {"context_length": 16384},
            "plan": 1,
        },
        "large": {"path": large, "gpu": one, "options": load, "plan": 1},
        "large on two": {"path": large, "gpu": {"count": 2}, "options": load, "plan": 1},
        "large and full": {"path": large, "gpu": {"count": 2, "offload": "full"}, "options": load, "plan": 1},
    }
    return dict(zip(cases, load_all(environment, list(cases.values())), strict=True))


def loaded(result: Mapping[str, Any]) -> Loaded:
    assert "error" not in result, result
    offload = result["offload"]
    return Loaded(
        offload["layers"],
        offload["total_layers"],
        offload["reason"],
        result["slots"],
        result["vram"],
        {device["name"]: device["bytes"] for device in offload["devices"]},
        {device["name"]: device["predicted"] for device in offload["devices"]},
    )


def test_one_gpu_gets_all_layers(results: Results) -> None:
    one = loaded(results["one"])
    assert (one.layers, one.total, one.reason) == (9, 9, "")
    assert list(one.bytes) == ["Vulkan0"]
    assert one.bytes["Vulkan0"] > 8 * 9 * MIB


def test_layers_are_split_over_two_gpus_by_their_free_memory(results: Results) -> None:
    two = loaded(results["two"])
    assert (two.layers, two.reason) == (9, "")
    assert min(two.bytes.values()) > 3 * 9 * MIB


def test_without_a_split_the_main_gpu_has_the_whole_model(results: Results) -> None:
    main = loaded(results["main"])
    assert main.bytes == {"Vulkan0": 0, "Vulkan1": loaded(results["one"]).bytes["Vulkan0"]}


def test_the_layers_follow_the_shares_of_the_spec(results: Results) -> None:
    shares = loaded(results["shares"])
    assert shares.bytes["Vulkan0"] > 2 * shares.bytes["Vulkan1"] > 0


@pytest.mark.parametrize(
    ("name", "text"), [("no main", "there is no GPU 1"), ("too many shares", "2 shares for 1 GPU")]
)
def test_a_gpu_that_does_not_exist_is_an_error(results: Results, name: str, text: str) -> None:
    assert text in results[name]["error"]


def test_experts_of_the_first_layers_stay_on_the_cpu(results: Results) -> None:
    everywhere, split = loaded(results["experts"]), loaded(results["experts on the CPU"])
    assert (everywhere.layers, split.layers) == (5, 5)
    experts = 3 * (3 * 8 * 256 * 256 * 2)
    assert everywhere.bytes["Vulkan0"] - split.bytes["Vulkan0"] >= experts


def test_num_gpu_is_the_maximum_of_layers(results: Results) -> None:
    some = loaded(results["some layers"])
    assert (some.layers, some.reason) == (3, "the parameter num_gpu is 3")
    assert some.vram < loaded(results["one"]).vram


def test_a_model_without_layers_on_gpus_is_on_the_cpu_without_a_reason(results: Results) -> None:
    none = loaded(results["no layers"])
    assert (none.layers, none.vram, none.bytes, none.reason) == (0, 0, {}, "")


def test_a_quantized_kv_cache_takes_less_memory(results: Results) -> None:
    assert loaded(results["quantized cache"]).vram < loaded(results["one"]).vram


def test_all_gpus_that_there_are_hold_a_model_that_fits_them(results: Results) -> None:
    assert loaded(results["missing"]).bytes == loaded(results["two"]).bytes


def test_the_layers_that_fit_are_on_the_gpu(results: Results) -> None:
    small = loaded(results["small"])
    assert 1 <= small.layers < 9
    assert small.reason.startswith(f"{small.layers} of 9 layers fit the GPUs; with all of them Vulkan0 (llvmpipe")
    assert small.vram <= 123 * MIB - SPARE_BYTES


def test_a_model_of_which_no_layer_fits_is_on_the_cpu_with_the_figures(results: Results) -> None:
    none = loaded(results["no room"])
    assert (none.layers, none.bytes) == (0, {})
    assert none.reason.startswith("0 of 9 layers fit the GPUs; with all of them Vulkan0")
    assert none.reason.endswith("and 1 MiB of 2048 MiB is free")


def test_a_model_that_must_fit_and_does_not_is_refused_with_the_figures(results: Results) -> None:
    assert "the model does not fit the GPUs: Vulkan0 (llvmpipe" in results["full"]["error"]
    assert results["full"]["error"].endswith("and 1 MiB of 2048 MiB is free")


def test_fewer_slots_are_taken_before_fewer_layers(results: Results) -> None:
    assert (results["slots"]["slots"], results["slots"]["layers"]) == (1, -1)
    assert results["slots"]["reason"] == ""


def test_a_large_model_is_partly_on_one_gpu(results: Results) -> None:
    """Of 2048 MiB, four layers of 416 MiB and the output of 250 MiB fit."""
    large = results["large"]
    assert large["layers"] == 5
    assert "5 of 17 layers fit the GPUs" in large["reason"]
    assert large["predicted"]["Vulkan0"] <= 2048 * MIB - SPARE_BYTES


def test_the_layers_of_a_large_model_fill_two_gpus(results: Results) -> None:
    """The shares follow what each GPU has besides layers, so neither has room for one more."""
    assert results["large on two"]["layers"] == 9
    assert all(size <= 2048 * MIB - SPARE_BYTES for size in results["large on two"]["predicted"].values())


def test_a_large_model_is_refused_with_the_figures_of_every_gpu(results: Results) -> None:
    text = results["large and full"]["error"]
    assert [name in text for name in ("Vulkan0", "Vulkan1", "of 2048 MiB is free")] == [True, True, True]


@pytest.mark.parametrize(
    "name", ["one", "two", "main", "shares", "experts", "experts on the CPU", "some layers", "quantized cache", "small"]
)
def test_the_memory_of_each_gpu_is_predicted(results: Results, name: str) -> None:
    """Never below, and above by the inputs that llama.cpp plans to copy between GPUs and does not."""
    found = loaded(results[name])
    for device, size in found.bytes.items():
        assert size - LOG_ROUNDING <= found.predicted[device] <= 1.01 * size + COPIES, device
    assert found.vram == sum(found.bytes.values())
