"""Models of hubs and web servers in ``corral serve``: from the source to the first token."""

from __future__ import annotations

import hashlib
from pathlib import Path

import httpx
import ollama
import pytest

from tests.local.served import START, Served, model_file, serving
from tests.support.gguf_split import split_gguf
from tests.support.hub_repository import Repository
from tests.support.hub_server import HubServer, running_hub
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until

pytestmark = pytest.mark.process

NAME = "org/Tiny-GGUF"
PART = "Q8_0/tiny-Q8_0-0000{}-of-00003.gguf"


def environment(tmp_path: Path, hub: HubServer, **more: str) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "CORRAL_PLAIN_HTTP_HOSTS": "127.0.0.1,localhost",
        "HF_ENDPOINT": hub.url,
        "MODELSCOPE_ENDPOINT": hub.url,
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HF_TOKEN", "HF_HOME", "HF_TOKEN_PATH"), ""),
        **more,
    }


def add_repository(hub: HubServer, tmp_path: Path) -> Repository:
    """Add a repository with one quantization in one file, and another one in three parts."""
    weights = write_tiny_model(tmp_path)
    parts = split_gguf(weights, tmp_path, parts=3)
    files = {PART.format(number): part.read_bytes() for number, part in enumerate(parts, 1)}
    repository = hub.add(Repository(NAME))
    modelfile = {"system": b"Be brief.", "params": b'{"num_predict": 3, "temperature": 0}'}
    pin = repository.commit({**files, **modelfile, "tiny-Q4_K_M.gguf": weights.read_bytes()}, branch="main")
    repository.refs["master"] = pin
    return repository


def tokens(served: Served, model: str) -> int:
    answer = served.client.generate(model, "Hello", options={"num_predict": 3, "temperature": 0})
    return answer.eval_count or 0


def test_the_first_request_to_a_model_of_each_source_gets_tokens(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    with running_hub() as hub:
        repository = add_repository(hub, tmp_path)
        hub.tokens.add("hf_reader")
        repository.gated_for = frozenset({"hf_reader"})
        small = {"contextLength": 256, "parallel": 1}
        url = f"{hub.url}/{NAME}/resolve/main/tiny-Q4_K_M.gguf".replace("http://", "https://")
        model_file(models, "hub", source=f"hf://{NAME}", **small)
        model_file(models, "parts", source=f"modelscope://{NAME}:q8_0", **small)
        model_file(models, "web", source=url, **small)
        with serving(tmp_path, models, environment=environment(tmp_path, hub, HF_TOKEN="hf_reader")) as served:
            assert [tokens(served, name) for name in ("hub", "parts", "web")] == [3, 3, 3]
            shown = httpx.post(f"{served.url}/api/show", json={"model": "hub"}, timeout=START).json()
            assert shown["system"] == "Be brief."
            pins = {str(event["source"]): event["pin"] for event in served.events("pulled")}
    digest = hashlib.sha256((tmp_path / "tiny.gguf").read_bytes()).hexdigest()
    assert set(pins.values()) == {repository.refs["main"], digest}
    blobs = list((tmp_path / "cache/corral/models/blobs").iterdir())
    assert len(blobs) == 4, "the weights of hub and web are one blob"


def test_a_gated_repository_without_a_token_says_what_to_do(tmp_path: Path) -> None:
    with running_hub() as hub:
        add_repository(hub, tmp_path).gated_for = frozenset({"hf_reader"})
        file = model_file(tmp_path, "hub", source=f"hf://{NAME}", contextLength=256)
        with serving(tmp_path, file, environment=environment(tmp_path, hub)) as served:
            until(lambda: served.events("pull_failed"), START)
            with pytest.raises(ollama.ResponseError, match=f"Accept its licence at {hub.url}/{NAME}"):
                served.client.generate("hub", "Hello")
        assert not hub.content_seen
