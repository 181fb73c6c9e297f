"""Models that clients create at a ``corral serve`` process, with PyPI's client of Ollama and the command ``corral``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest

from corral_server.pull.store import WeightsStore
from corral_server.pull.stored import uploaded_ids
from tests.local.cli.test_pull_commands import corral
from tests.local.pulls_stack import serving_from, settings, store
from tests.local.served import Served, model_file
from tests.support.ollama_registry import OllamaRegistry, ollama_registry
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.process


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[OllamaRegistry]:
    with ollama_registry() as registry:
        registry.push(write_tiny_model(tmp_path).read_bytes(), params={"num_predict": 3, "temperature": 0})
        yield registry


def names(served: Served) -> list[str]:
    return sorted(item["name"] for item in httpx.get(f"{served.url}/api/tags").json()["models"])


def test_a_model_that_the_server_does_not_know_is_pulled_kept_over_a_restart_and_deleted(
    tmp_path: Path, registry: OllamaRegistry
) -> None:
    name = f"{registry.host}/library/tiny:latest"
    with serving_from(tmp_path, registry) as served:
        assert names(served) == []
        event = served.events("models_folder")[0]
        assert (event["folder"], event["create"]) == (str(tmp_path / "created"), "anyone")
        statuses = [line.status for line in served.client.pull(name, stream=True)]
        assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")
        assert served.client.generate(name, "Hello").done
        served.client.copy(name, "mine")
        assert served.client.generate("mine", "Hello").eval_count == 3
    with serving_from(tmp_path, registry) as served:
        assert names(served) == [name, "mine:latest"]
        served.client.delete("mine")
        assert names(served) == [name]
        assert served.client.generate(name, "Hello").done
        served.client.delete(name)
        assert names(served) == []
        with pytest.raises(ollama.ResponseError, match="not found"):
            served.client.generate(name, "Hello")
    assert list((tmp_path / "created").iterdir()) == []


def test_the_command_creates_a_model_from_a_modelfile_and_a_file(tmp_path: Path, registry: OllamaRegistry) -> None:
    modelfile = tmp_path / "Modelfile"
    weights = write_tiny_model(tmp_path)
    modelfile.write_text(f'FROM ./{weights.name}\nPARAMETER num_predict 2\nSYSTEM """be\nbrief"""\n')
    with serving_from(tmp_path, registry) as served:
        environment = {**settings(tmp_path, registry), "OLLAMA_HOST": served.url}
        created = corral(environment, "create", "mine", "-f", str(modelfile))
        assert (created.returncode, created.stdout.splitlines()[-1]) == (0, "success"), created.stderr
        assert served.client.generate("mine", "Hello").done
        assert (served.client.show("mine").parameters or "").split() == ["num_predict", "2"]
        assert served.client.show("mine").modelinfo
        assert corral(environment, "cp", "mine", "other").returncode == 0
        assert names(served) == ["mine:latest", "other:latest"]
        removed = corral(environment, "rm", "mine", "other")
        assert removed.stdout == "deleted 'mine'\ndeleted 'other'\n"
        assert names(served) == []
        assert len(uploaded_ids(WeightsStore(store(tmp_path)))) == 1, "a new upload stays for a while"


def test_what_is_not_allowed_is_refused_with_what_to_do(tmp_path: Path, registry: OllamaRegistry) -> None:
    file = model_file(tmp_path, "tiny", source=registry.uri(), contextLength=256)
    with serving_from(tmp_path, registry, file) as served:
        with pytest.raises(ollama.ResponseError, match="in local mode its file") as refused:
            served.client.delete("tiny")
        assert refused.value.status_code == 403
        with pytest.raises(ollama.ResponseError):
            served.client.copy("tiny", "../../../escaped")
        with pytest.raises(ollama.ResponseError, match="pull model manifest: file does not exist"):
            served.client.pull(f"{registry.host}/library/nothing")
        assert names(served) == ["tiny:latest"]
    assert file.exists()
    with serving_from(tmp_path, registry, file, CORRAL_MODELS_CREATE="Never") as served:
        with pytest.raises(ollama.ResponseError, match="CORRAL_MODELS_CREATE") as refused:
            served.client.copy("tiny", "mine")
        assert refused.value.status_code == 403
    assert [path for path in (tmp_path / "created").rglob("*") if path.is_file()] == []
