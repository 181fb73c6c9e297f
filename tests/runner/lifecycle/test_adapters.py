"""From a Model's adapters to the files of the engine, and from a request's name to its adapter."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.model.model import ModelSpec
from corral_core.sources.locate import WeightsRoots
from corral_server.runner.engine.contexts import AdapterFile
from corral_server.runner.lifecycle.adapters import adapter_files
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import serving

SPEC = {"adapters": [{"name": "Tuned", "source": "file:///nowhere/tuned.gguf"}]}


def spec(*adapters: dict[str, object], source: str = "pvc://claim/model.gguf") -> ModelSpec:
    return ModelSpec.model_validate({"source": source, "adapters": list(adapters)})


def test_adapters_have_canonical_names_and_their_scale(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    files = adapter_files(spec({"name": "Tuned", "source": "pvc://claim/a.gguf", "scale": 0.5}), WeightsRoots(tmp_path))
    assert files == {"tuned:latest": AdapterFile(tmp_path / "a.gguf", 0.5)}


def test_an_adapter_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.gguf"):
        adapter_files(spec({"name": "tuned", "source": "pvc://claim/a.gguf"}), WeightsRoots(tmp_path))


def test_the_digest_of_an_adapter_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"adapter")
    digest = hashlib.sha256(b"adapter").hexdigest()
    adapter = {"name": "tuned", "source": "pvc://claim/a.gguf"}
    assert adapter_files(spec({**adapter, "sha256": digest}), WeightsRoots(tmp_path))
    with pytest.raises(SourceError, match=digest):
        adapter_files(spec({**adapter, "sha256": "0" * 64}), WeightsRoots(tmp_path))


@pytest.mark.parametrize(
    ("model", "adapter"), [("tiny", ""), ("tuned", "tuned:latest"), ("TUNED:Latest", "tuned:latest")]
)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "hi"}),
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}),
    ],
)
def test_the_name_that_a_request_asks_for_picks_the_adapter(
    model: str, adapter: str, path: str, body: dict[str, object]
) -> None:
    engine = FakeEngine()
    with serving(engine, spec=SPEC) as runner:
        assert runner.post(path, {"model": model, **body}).status_code == 200
    assert [task.adapter for task in engine.tasks] == [adapter]
