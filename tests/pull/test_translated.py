"""Pulled weights that only Ollama can load are translated into a blob of their own."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import ModelSpec
from corral_core.sources.locate import WeightsRoots
from corral_core.sources.snapshot import FileRole, SnapshotFile, blob_path
from corral_core.weights.gguf_metadata import read_metadata
from corral_server.pull.credentials import NO_CREDENTIALS
from corral_server.pull.download import report
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.errors import StoreFull
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.pod.inspect import inspect
from corral_server.pull.progress import PullProgress, PullStage
from corral_server.pull.puller import Puller
from corral_server.pull.store import WeightsStore
from corral_server.pull.translated import translated_files
from corral_server.runner.config import from_environment
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.lifecycle.loading import load_model
from tests.pull.servers.registry import DockerRegistry, docker_registry
from tests.runner.engines import GREEDY, answer
from tests.support.gguf_files import gguf_bytes
from tests.support.gguf_split import split_gguf
from tests.support.ollama_models import gpt_oss
from tests.support.ollama_registry import OllamaRegistry, ollama_registry

FAST = DownloadOptions(attempts=2, first_delay=0.01, max_delay=0.02)
OTHER = SnapshotFile("mmproj.gguf", FileRole.PROJECTOR, "0" * 64, 1)


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    store = WeightsStore(tmp_path / "store")
    store.prepare()
    return store


def _stored(store: WeightsStore, content: bytes, name: str = "model.gguf") -> SnapshotFile:
    digest = hashlib.sha256(content).hexdigest()
    blob_path(store.root, digest).write_bytes(content)
    return SnapshotFile(name, FileRole.WEIGHTS, digest, len(content))


def _ollama(folder: Path) -> bytes:
    return gpt_oss().write(folder)[1].read_bytes()


def _ignore(_progress: PullProgress) -> None:
    pass


def test_weights_for_ollama_are_translated_once_and_the_same_each_time(store: WeightsStore, tmp_path: Path) -> None:
    content = _ollama(tmp_path)
    pulled = _stored(store, content)
    told: list[PullProgress] = []
    files = translated_files(store, [pulled, OTHER], told.append)
    weights = files[0]
    path = store.blob(weights.sha256, size=weights.size)
    assert path is not None
    assert (weights.name, weights.role, files[1]) == ("model.gguf", FileRole.WEIGHTS, OTHER)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256 != pulled.sha256
    assert read_metadata(path).family == "gpt-oss"
    assert blob_path(store.root, pulled.sha256).read_bytes() == content
    assert {progress.stage for progress in told} == {PullStage.PUBLISHING}
    assert all(progress.total is not None and progress.completed <= progress.total for progress in told)
    assert translated_files(store, [pulled, OTHER], _ignore) == files
    assert list(store.partial.iterdir()) == []


def test_the_blobs_of_the_pull_are_kept_during_the_translation(
    store: WeightsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list[str]()
    monkeypatch.setattr(store, "keep", lambda sha256="": kept.append(sha256))
    monkeypatch.setattr(report, "_KEEP_INTERVAL", 0.0)
    translated_files(store, [_stored(store, _ollama(tmp_path))], _ignore)
    assert len(kept) > 1
    assert set(kept) == {""}, "all of the pull"


@pytest.mark.parametrize("content", [gguf_bytes(), b"something else", gguf_bytes({"general.architecture": "mllama"})])
def test_other_weights_stay_as_they_are(store: WeightsStore, content: bytes) -> None:
    files = [_stored(store, content), OTHER]
    assert translated_files(store, files, _ignore) == tuple(files)


def test_parts_of_split_weights_stay_as_they_are(store: WeightsStore, tmp_path: Path) -> None:
    (tmp_path / "whole.gguf").write_bytes(_ollama(tmp_path))
    parts = split_gguf(tmp_path / "whole.gguf", tmp_path, parts=2)
    files = [_stored(store, part.read_bytes(), part.name) for part in parts]
    assert translated_files(store, files, _ignore) == tuple(files)


def test_translation_without_room_is_an_error_with_the_numbers(tmp_path: Path) -> None:
    store = WeightsStore(tmp_path / "store", size_limit=1 << 20)
    store.prepare()
    pulled = _stored(store, _ollama(tmp_path))
    with pytest.raises(StoreFull, match=r"model\.gguf is translated for llama\.cpp, which needs .* are free in"):
        translated_files(store, [pulled], _ignore)
    assert list(store.partial.iterdir()) == []


def _puller(store: WeightsStore, registry: OllamaRegistry | DockerRegistry) -> Puller:
    transports = NetworkTransports(NetworkSettings(plain_http_hosts=frozenset({registry.host})), NO_CREDENTIALS)
    return Puller(store, transports, Downloader(store, transports, options=FAST))


@pytest.mark.process
def test_model_of_ollama_is_pulled_translated_and_answers(store: WeightsStore, tmp_path: Path) -> None:
    found: list[ModelMetadata | None] = []
    with ollama_registry() as registry:
        digest = registry.push(_ollama(tmp_path))
        uri = registry.uri()
        snapshot = _puller(store, registry).pull(uri, found=lambda _resolved, metadata: found.append(metadata))
        requests = len(registry.requests)
        assert _puller(store, registry).pull(uri, pin=snapshot.pin) == snapshot
        assert len(registry.requests) == requests
    assert found[0] is not None
    assert found[0].family == "gpt-oss"
    assert snapshot.files[0].sha256 != digest
    model = json.dumps({"name": "a", "namespace": "b", "spec": {"source": uri, "contextLength": 64, "parallel": 1}})
    snapshots = json.dumps({uri: snapshot.id})
    config = from_environment(
        {"CORRAL_MODEL": model, "CORRAL_STORE": str(store.root), "CORRAL_SNAPSHOTS": snapshots, "CORRAL_THREADS": "1"}
    )
    loaded = load_model(config.model.spec, config.engine, roots=config.roots, progress=lambda _: True)
    assert isinstance(loaded.engine, LlamaEngine)
    try:
        prompt = tuple(loaded.engine.tokenize("one two", add_special=True, parse_special=True))
        assert len(answer(loaded.engine, GenerationTask(prompt, GREEDY, max_tokens=4)).result.tokens) == 4
    finally:
        loaded.engine.close()


def test_weights_that_were_translated_are_not_kept_after_the_pull(store: WeightsStore, tmp_path: Path) -> None:
    with ollama_registry() as registry:
        digest = registry.push(_ollama(tmp_path))
        _puller(store, registry).pull(registry.uri())
    path = blob_path(store.root, digest)
    os.utime(path, (1, 1))
    store.keep()
    assert path.stat().st_mtime == 1


@pytest.mark.parametrize("kind", ["ollama", "native"])
def test_room_for_the_translation_counts_before_the_pull(kind: str, store: WeightsStore, tmp_path: Path) -> None:
    native, ollama = gpt_oss().write(tmp_path)
    content = (ollama if kind == "ollama" else native).read_bytes()
    with ollama_registry() as registry:
        registry.push(content)
        spec = ModelSpec.model_validate({"source": registry.uri()})
        report = inspect(spec, {}, _puller(store, registry), roots=WeightsRoots())
    assert report.resolved is not None
    assert report.resolved.total == len(content) + (report.metadata.size if kind == "ollama" else 0)


@pytest.mark.process
@pytest.mark.parametrize("kind", ["ollama", "native"])
def test_weights_that_must_be_translated_are_not_mounted(kind: str, store: WeightsStore, tmp_path: Path) -> None:
    native, ollama = gpt_oss().write(tmp_path)
    content = (ollama if kind == "ollama" else native).read_bytes()
    with docker_registry(tmp_path) as registry:
        spec = ModelSpec.model_validate({"source": registry.push_image({"models/m.gguf": content})})
        report = inspect(spec, {}, _puller(store, registry), roots=WeightsRoots())
    assert report.resolved is not None
    assert report.resolved.image_path == ("" if kind == "ollama" else "models/m.gguf")
