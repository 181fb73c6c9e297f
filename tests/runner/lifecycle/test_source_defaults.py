"""What a pulled source brings besides weights, in a real runner: below what the Model says."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.contracts.source_defaults import SourceDefaults, SourceMessage
from corral_core.model.model import ModelSpec
from corral_core.sources.locate import WeightsRoots
from corral_core.sources.snapshot import FileRole, Snapshot
from corral_server.pull.collect import remove_source
from corral_server.pull.store import WeightsStore
from corral_server.runner.lifecycle.adapters import SOURCE_ADAPTER, adapter_files
from tests.support.lora import write_lora
from tests.support.pulled_store import publish, store_settings
from tests.support.runner_process import runner_environment, runner_process
from tests.support.tiny_model import EMBEDDING, LAYERS, write_tiny_model

URI = "ollama://registry.example.com/library/tiny:latest"
DEFAULTS = SourceDefaults(
    template="{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}",
    system="be brief",
    parameters={"num_ctx": 512, "temperature": 0, "num_predict": 4, "use_mlock": True},
    messages=(SourceMessage("user", "one"), SourceMessage("assistant", "two")),
    licenses=("Apache-2.0",),
)


def pulled(folder: Path, *, adapters: int = 0) -> Snapshot:
    files = {write_tiny_model(folder): FileRole.WEIGHTS}
    for seed in range(adapters):
        path = write_lora(folder / f"lora{seed}.gguf", seed=seed, strength=20.0, width=EMBEDDING, layers=LAYERS)
        files[path] = FileRole.ADAPTER
    return publish(folder / "store", URI, files, defaults=DEFAULTS)


@pytest.mark.process
def test_a_runner_serves_with_the_defaults_of_the_source(tmp_path: Path) -> None:
    settings = store_settings(tmp_path / "store", pulled(tmp_path))
    with runner_process(runner_environment(URI, spec={"parameters": {"num_predict": 3}}, **settings)) as runner:
        ignored = runner.wait_ready().event("parameters_ignored")
        assert ignored is not None
        assert ignored["names"] == ["use_mlock"]
        loaded = runner.event("loaded")
        assert loaded is not None
        assert loaded["context_length"] == 512
        with runner.client() as http:
            show = http.post("/api/show", json={"model": "smollm2"}).json()
            chat = {"model": "smollm2", "messages": [{"role": "user", "content": "three"}], "stream": False}
            answer = http.post("/api/chat", json=chat).json()
            prompt = {"model": "smollm2", "prompt": "three", "stream": False}
            generated = http.post("/api/generate", json=prompt).json()
    assert (show["system"], show["template"], show["license"]) == ("be brief", DEFAULTS.template, "Apache-2.0")
    assert show["messages"] == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    assert "num_ctx                        512" in show["parameters"]
    assert "use_mlock" not in show["parameters"]
    assert show["modelfile"].endswith("MESSAGE user one\nMESSAGE assistant two\n")
    text = "<system>be brief<user>one<assistant>two<user>three"
    assert answer["eval_count"] == generated["eval_count"] == 3
    assert answer["prompt_eval_count"] == generated["prompt_eval_count"] == len(text) - text.count("th")


@pytest.mark.process
def test_the_messages_of_a_model_replace_those_of_its_source(tmp_path: Path) -> None:
    settings = store_settings(tmp_path / "store", pulled(tmp_path))
    messages = [{"role": "user", "content": "six"}, {"role": "assistant", "content": "two"}]
    environment = runner_environment(URI, spec={"messages": messages}, **settings)
    with runner_process(environment) as runner, runner.wait_ready().client() as http:
        show = http.post("/api/show", json={"model": "smollm2"}).json()
        chat = {"model": "smollm2", "messages": [{"role": "user", "content": "ten"}], "_debug_render_only": True}
        answer = http.post("/api/chat", json=chat).json()
    assert show["messages"] == messages
    assert answer["_debug_info"]["rendered_template"] == "<system>be brief<user>six<assistant>two<user>ten"


@pytest.mark.process
def test_the_adapter_of_a_source_applies_to_the_model_itself(tmp_path: Path) -> None:
    answers = []
    for adapters in (0, 1):
        folder = tmp_path / str(adapters)
        folder.mkdir()
        settings = store_settings(folder / "store", pulled(folder, adapters=adapters))
        environment = runner_environment(URI, spec={}, **settings)
        with runner_process(environment) as runner, runner.wait_ready().client() as http:
            body = {"model": "smollm2", "prompt": "x", "raw": True, "stream": False, "options": {"num_predict": 16}}
            answers.append(http.post("/api/generate", json=body).json()["response"])
    assert answers[0] != answers[1]


def test_a_source_brings_one_adapter_at_most(tmp_path: Path) -> None:
    for adapters in (0, 1, 2):
        folder = tmp_path / str(adapters)
        folder.mkdir()
        roots = WeightsRoots(store=folder / "store", snapshots={URI: pulled(folder, adapters=adapters).id})
        if adapters == 2:
            with pytest.raises(SourceError, match="only one"):
                adapter_files(ModelSpec(source=URI), roots)
        else:
            assert list(adapter_files(ModelSpec(source=URI), roots)) == [SOURCE_ADAPTER] * adapters


@pytest.mark.process
def test_the_source_of_a_running_runner_is_not_collected(tmp_path: Path) -> None:
    snapshot = pulled(tmp_path)
    store = WeightsStore(tmp_path / "store")
    settings = store_settings(store.root, snapshot)
    with runner_process(runner_environment(URI, spec={}, **settings)) as runner:
        runner.wait_ready()
        assert not remove_source(store, snapshot.id)
    assert remove_source(store, snapshot.id)
