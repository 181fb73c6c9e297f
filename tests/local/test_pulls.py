"""A new user's path: a Model file with a remote source, ``corral serve``, the first request gets tokens."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest

from tests.local.pulls_stack import saved_bytes, serving_from, settings, store
from tests.local.served import START, Served, model_file, serving
from tests.support.ollama_registry import OllamaRegistry, ollama_registry, padded_weights, sha256
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until

pytestmark = pytest.mark.process

SIZE = 40 * 2**20
SMALL = {"contextLength": 256}


@pytest.fixture
def registry() -> Iterator[OllamaRegistry]:
    with ollama_registry() as registry:
        yield registry


def weights(folder: Path, *, seed: int = 1, size: int = 0) -> bytes:
    return padded_weights(write_tiny_model(folder, seed=seed), size)


def show(served: Served, name: str = "tiny") -> dict[str, object]:
    found = httpx.post(f"{served.url}/api/show", json={"model": name}, timeout=START).json()
    assert isinstance(found, dict)
    return found


def test_the_first_request_to_a_model_of_a_registry_gets_tokens(tmp_path: Path, registry: OllamaRegistry) -> None:
    registry.push(weights(tmp_path), system="be brief", params={"num_predict": 3, "temperature": 0})
    file = model_file(tmp_path, "tiny", source=registry.uri(), **SMALL)
    with serving_from(tmp_path, registry, file) as served:
        answer = served.client.generate("tiny", "Hello")
        assert answer.eval_count == 3
        assert served.events("pulled")[0]["source"] == registry.uri()
        assert show(served)["system"] == "be brief"
        assert httpx.get(f"{served.url}/api/tags").json()["models"][0]["size"] > 100_000
        before = len(registry.requests)
    with serving_from(tmp_path, registry, file) as served:
        assert served.client.generate("tiny", "Hello").eval_count == 3
    assert len(registry.requests) == before, "a pulled source is used without the network"


def test_a_killed_pull_continues_where_it_ended(tmp_path: Path, registry: OllamaRegistry) -> None:
    digest = registry.push(weights(tmp_path, size=SIZE))
    registry.limit = SIZE // 2
    file = model_file(tmp_path, "tiny", source=registry.uri(), **SMALL)
    environment = settings(tmp_path, registry)
    with serving(tmp_path, file, environment=environment) as served:
        until(lambda: saved_bytes(store(tmp_path)) >= SIZE // 4, START, what="a saved part of the download")
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(START)
    at_kill = registry.sent
    registry.go_on.set()
    with serving(tmp_path, file, environment=environment) as served:
        assert served.generate("tiny")
    assert registry.sent - at_kill < SIZE - SIZE // 8, "what had arrived was not downloaded again"
    assert sha256((store(tmp_path) / "blobs" / f"sha256-{digest}").read_bytes()) == digest


def test_while_a_model_is_pulled_its_progress_is_shown_and_requests_wait(
    tmp_path: Path, registry: OllamaRegistry
) -> None:
    digest = registry.push(weights(tmp_path, size=SIZE))
    registry.limit = SIZE // 2
    files = [
        model_file(tmp_path, "tiny", source=registry.uri(), **SMALL),
        model_file(tmp_path, "impatient", source=registry.uri(), **SMALL, queue={"maxWait": "1s"}),
    ]
    with serving_from(tmp_path, registry, *files) as served:
        progress = served.client.pull("tiny", stream=True)
        assert next(progress).status == "pulling manifest"
        part = next(line for line in progress if (line.completed or 0) >= SIZE // 4)
        assert (part.status, part.digest, part.total) == (f"pulling {digest[:12]}", f"sha256:{digest}", SIZE)
        item = httpx.get(f"{served.url}/api/tags").json()["models"][0]
        assert item["pulling"]["total"] == SIZE
        assert item["details"]["family"] == "llama", "the header is known before the weights"
        with pytest.raises(ollama.ResponseError, match=r"whose weights are being pulled \(\d+ % of 0.0 GB so far\)"):
            served.client.generate("impatient", "Hello")
        registry.go_on.set()
        rest = [line.status for line in progress]
        assert rest[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
        assert served.generate("tiny")


def test_a_wrong_tag_is_a_clear_error_and_heals_when_the_model_is_pushed(
    tmp_path: Path, registry: OllamaRegistry
) -> None:
    file = model_file(tmp_path, "tiny", source=registry.uri(tag="nope"), **SMALL)
    with serving_from(tmp_path, registry, file) as served:
        until(lambda: served.events("pull_failed"), START, what="the failure")
        with pytest.raises(ollama.ResponseError, match=r"model 'tiny:latest' cannot be pulled: .*nope") as error:
            served.client.generate("tiny", "Hello")
        assert error.value.status_code == 500
        with pytest.raises(ollama.ResponseError, match="nope"):
            served.client.pull("tiny")
        assert "nope" in httpx.get(f"{served.url}/api/tags").json()["models"][0]["pulling"]["error"]
        registry.push(weights(tmp_path), tag="nope")
        until(lambda: served.events("pulled"), START, what="the next attempt")
        assert served.generate("tiny")


def test_a_changed_source_replaces_the_old_weights_only_when_it_is_pulled(
    tmp_path: Path, registry: OllamaRegistry
) -> None:
    registry.push(weights(tmp_path), tag="1")
    registry.push(weights(tmp_path, seed=2, size=SIZE), tag="2", system="two")
    file = model_file(tmp_path, "tiny", source=registry.uri(tag="1"), system="one", **SMALL)
    with serving_from(tmp_path, registry, file) as served:
        assert served.generate("tiny")
        registry.sent, registry.limit = 0, SIZE // 2
        model_file(tmp_path, "tiny", source=registry.uri(tag="2"), **SMALL)
        until(lambda: registry.sent >= SIZE // 4, START, what="a part of the new weights")
        assert served.generate("tiny")
        assert show(served)["system"] == "one"
        registry.go_on.set()
        until(lambda: show(served)["system"] == "two", START, what="the new version")
        until(lambda: len(served.runners()) == 1 and len(served.events("ready")) == 2, START, what="the new runner")
        assert served.generate("tiny")


def test_without_prefetch_the_first_request_starts_the_pull(tmp_path: Path, registry: OllamaRegistry) -> None:
    registry.push(weights(tmp_path))
    file = model_file(tmp_path, "tiny", source=registry.uri(), prefetch=False, **SMALL)
    with serving_from(tmp_path, registry, file) as served:
        until(lambda: served.client.list().models, START, what="the Model")
        assert served.events("pulling") == []
        assert served.generate("tiny")
        assert served.events("pulled")


def test_without_prefetch_api_pull_pulls_and_starts_no_runner(tmp_path: Path, registry: OllamaRegistry) -> None:
    digest = registry.push(weights(tmp_path, size=SIZE))
    registry.limit = SIZE // 2
    file = model_file(tmp_path, "tiny", source=registry.uri(), prefetch=False, **SMALL)
    with serving_from(tmp_path, registry, file) as served:
        until(lambda: served.client.list().models, START, what="the Model")
        statuses = []
        for progress in served.client.pull("tiny", stream=True):
            statuses.append(progress.status)
            if progress.status == f"pulling {digest[:12]}":
                registry.go_on.set()
        assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")
        assert f"pulling {digest[:12]}" in statuses
        assert [progress.status for progress in served.client.pull("tiny", stream=True)][-1] == "success"
        assert len(served.events("pulled")) == 1
        assert served.runners() == []


def test_a_removed_model_is_not_pulled_to_its_end(tmp_path: Path, registry: OllamaRegistry) -> None:
    registry.push(weights(tmp_path, size=SIZE))
    registry.limit = SIZE // 4
    folder = tmp_path / "models"
    folder.mkdir()
    file = model_file(folder, "tiny", source=registry.uri(), **SMALL)
    with serving_from(tmp_path, registry, folder) as served:
        until(lambda: registry.sent >= SIZE // 8, START, what="the start of the download")
        file.unlink()
        until(lambda: served.events("model_removed"), START)
        assert served.events("pulled") == []
        registry.go_on.set()
        model_file(folder, "other", source=registry.uri(), **SMALL)
        until(lambda: len(served.events("model_added")) == 2, START)
        assert served.generate("other")


def test_a_model_of_ollamas_directory_is_used_without_a_network(tmp_path: Path, registry: OllamaRegistry) -> None:
    digest = registry.push(weights(tmp_path), system="from ollama")
    models = tmp_path / "ollama"
    manifest = models / "manifests" / registry.host / "library" / "tiny" / "latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_bytes(registry.manifests["/v2/library/tiny/manifests/latest"])
    (models / "blobs").mkdir()
    for name, data in registry.blobs.items():
        (models / "blobs" / name.replace(":", "-")).write_bytes(data)
    before = sorted(path for path in models.rglob("*") if path.is_file())
    file = model_file(tmp_path, "tiny", source=registry.uri(), **SMALL)
    with serving_from(tmp_path, registry, file, OLLAMA_MODELS=str(models)) as served:
        assert served.generate("tiny")
        assert show(served)["system"] == "from ollama"
    assert registry.requests == []
    assert sorted(path for path in models.rglob("*") if path.is_file() and "corral" not in path.parts) == before
    assert (models / "corral" / "blobs" / f"sha256-{digest}").stat().st_size > 0


def test_two_models_of_one_digest_are_downloaded_once(tmp_path: Path, registry: OllamaRegistry) -> None:
    registry.push(weights(tmp_path, size=SIZE), name="a")
    registry.push(weights(tmp_path, size=SIZE), name="b")
    files = [model_file(tmp_path, name, source=registry.uri(name), **SMALL) for name in ("a", "b")]
    with serving_from(tmp_path, registry, *files) as served:
        assert served.generate("a")
        assert served.generate("b")
    assert registry.sent < 1.5 * SIZE


def test_a_moved_tag_is_pulled_and_loaded_only_with_the_policy_poll(tmp_path: Path, registry: OllamaRegistry) -> None:
    registry.push(weights(tmp_path), system="old")
    file = model_file(tmp_path, "tiny", source=registry.uri(), **SMALL)
    with serving_from(tmp_path, registry, file) as served:
        assert served.generate("tiny")
    registry.push(weights(tmp_path, seed=2), system="new")
    with serving_from(tmp_path, registry, file) as served:
        assert served.generate("tiny")
        assert show(served)["system"] == "old"
        model_file(tmp_path, "tiny", source=registry.uri(), updatePolicy="Poll", **SMALL)
        until(lambda: served.events("model_changed"), START)
    with serving_from(tmp_path, registry, file) as served:
        until(lambda: show(served)["system"] == "new", START, what="the new version")
        assert served.generate("tiny")


def test_a_moved_tag_is_loaded_at_the_next_start_with_the_policy_on_restart(
    tmp_path: Path, registry: OllamaRegistry
) -> None:
    registry.push(weights(tmp_path), system="old")
    file = model_file(tmp_path, "tiny", source=registry.uri(), updatePolicy="OnRestart", keepAlive="1s", **SMALL)
    with serving_from(tmp_path, registry, file) as served:
        assert served.generate("tiny")
        registry.push(weights(tmp_path, seed=2), system="new")
        until(lambda: served.runners() == [], START, what="scale to zero")
        assert show(served)["system"] == "old", "nothing is resolved while no runner starts"
        assert served.generate("tiny")
        assert show(served)["system"] == "new"
        registry.manifests.clear()
        until(lambda: served.runners() == [], START, what="scale to zero")
        assert served.generate("tiny"), "the present version starts"
        assert served.events("update_failed")


def test_weights_that_were_deleted_are_pulled_again(tmp_path: Path, registry: OllamaRegistry) -> None:
    registry.push(weights(tmp_path))
    file = model_file(tmp_path, "tiny", source=registry.uri(), keepAlive="1s", **SMALL)
    with serving_from(tmp_path, registry, file) as served:
        assert served.generate("tiny")
        until(lambda: served.runners() == [], START, what="scale to zero")
        for blob in (store(tmp_path) / "blobs").iterdir():
            blob.unlink()
        until(lambda: len(served.events("pulled")) == 2, START, what="the second pull")
        assert served.generate("tiny")


def test_a_file_of_a_web_server_is_a_source(tmp_path: Path, registry: OllamaRegistry) -> None:
    registry.files["/models/tiny.gguf"] = weights(tmp_path)
    file = model_file(tmp_path, "tiny", source=f"https://{registry.host}/models/tiny.gguf", **SMALL)
    with serving_from(tmp_path, registry, file) as served:
        assert served.generate("tiny")
