"""Remote sources on a real node: pods under Pod Security "restricted" resolve, pull and load a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest
import yaml

from tests.clients.command import Command
from tests.clients.ollama_program import program
from tests.cluster.api import MODELS, Object, at
from tests.cluster.fake_volumes import CLASS, FakeVolumes
from tests.node.pulls import Pull, weights_size
from tests.node.release import CHART, COLD_START, MODELS_NAMESPACE, ONE_THREAD, POLL, Release
from tests.support.ollama_registry import OllamaRegistry
from tests.support.waiting import until

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]

PARAMETERS = {"num_predict": 8}

HEADERS = 16 * 2**20
"""Bytes that two resolvers read at most."""

OVERSHOOT = 32 * 2**20
"""Bytes on their way in connections that a download closes at its end, when idle connections take over their rest."""


@pytest.fixture
def twin(release: Release, model: str) -> Iterator[str]:
    """A name for another Model."""
    yield f"{model}-twin"
    release.remove(f"{model}-twin")


@pytest.fixture
def shared_claim(release: Release, model: str, volumes: FakeVolumes) -> Iterator[str]:
    """A claim for many Models."""
    name = f"{model}-weights"
    spec = {"accessModes": ["ReadWriteMany"], "storageClassName": CLASS, "resources": {"requests": {"storage": "2Gi"}}}
    metadata = {"name": name, "namespace": MODELS_NAMESPACE}
    release.cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    yield name
    release.cluster.api.delete(f"/api/v1/namespaces/{MODELS_NAMESPACE}/persistentvolumeclaims/{name}")


def test_a_source_is_all_that_a_model_needs(
    release: Release, model: str, registry: OllamaRegistry, volumes: FakeVolumes
) -> None:
    release.add(model, source=registry.uri())
    with release.ollama() as client:
        parts = list(client.chat(model, [ollama.Message(role="user", content="Name three colours.")], stream=True))
    assert "".join(part.message.content or "" for part in parts).strip()
    source = at(release.model(model), "status", "source")
    assert str(at(source, "pin")).startswith("sha256:")
    (runner,) = release.ready_pods(model)
    mounts = at(runner, "spec", "containers", 0, "volumeMounts")
    assert {"name": "store", "mountPath": "/store", "readOnly": True} in list(mounts)  # type: ignore[call-overload]
    claim = f"/api/v1/namespaces/{MODELS_NAMESPACE}/persistentvolumeclaims/model-{model}"
    assert release.cluster.api.find(claim) is not None
    release.remove(model)
    until(lambda: release.cluster.api.find(claim) is None, COLD_START, what="the end of the claim", interval=POLL)


@pytest.fixture
def creating_gateway(release: Release, registry: OllamaRegistry, volumes: FakeVolumes) -> Iterator[str]:
    """Let all clients create Models from the registry; yield the address of a gateway with these settings."""
    chart = yaml.safe_load((CHART / "values.yaml").read_text())["models"]
    values = {
        "create": "Anyone",
        "namespace": MODELS_NAMESPACE,
        "sources": [f"ollama://{registry.host}/*"],
        "profiles": [{"spec": {"contextLength": 1024, "parallel": 2, "pod": ONE_THREAD, "parameters": PARAMETERS}}],
    }
    release.upgrade("--set-json", f"models={json.dumps(values)}")
    yield f"http://{release.gateways()[0]}"
    release.upgrade("--set-json", f"models={json.dumps(chart)}")


def test_the_ollama_command_pulls_and_manages_models_of_the_cluster(
    release: Release, registry: OllamaRegistry, creating_gateway: str, tmp_path: Path
) -> None:
    command, name = Command(program(), creating_gateway, tmp_path, COLD_START), f"{registry.host}/library/tiny:latest"
    said = command("run", name, "Name three colours.")
    assert (said.status, bool(said.out.strip())) == (0, True), said
    assert said.err.rstrip().endswith("success")
    (tmp_path / "Modelfile").write_text(f"FROM {name}\nSYSTEM You are a pirate.\nPARAMETER num_predict 8\n")
    for words in (("cp", name, "copied"), ("create", "pirate", "-f", str(tmp_path / "Modelfile"))):
        assert command(*words).status == 0
    assert command("show", "pirate", "--system").out.strip() == "You are a pirate."
    assert {row[0] for row in command("ls").rows[1:]} >= {name, "copied:latest", "pirate:latest"}
    assert [row[0] for row in command("ps").rows[1:]] == [name]
    assert command("stop", name).status == 0
    assert command("rm", name, "copied", "pirate").status == 0
    models = f"{MODELS}/namespaces/{MODELS_NAMESPACE}/models"
    assert release.cluster.api.items(models, labelSelector="corral.dev/created-by=api") == []


def test_two_models_of_equal_weights_on_one_claim_are_one_download(
    release: Release, model: str, twin: str, registry: OllamaRegistry, shared_claim: str
) -> None:
    weights = registry.blobs[max(registry.blobs, key=lambda digest: len(registry.blobs[digest]))]
    for name in ("first", "twin"):
        registry.push(weights, name=name)
    sent = registry.sent
    registry.allow(HEADERS)
    for name, uri in ((model, registry.uri("first")), (twin, registry.uri("twin"))):
        release.add(name, source=uri, cache={"type": "shared", "claimName": shared_claim})
    pulls = [Pull(release, name, shared_claim) for name in (model, twin)]
    for pull in pulls:
        pull.container()
    registry.go_on.set()
    for name in (model, twin):
        release.wait_phase(name, "Idle")
    assert registry.sent - sent < weights_size(registry) + HEADERS + OVERSHOOT
    assert len(list((pulls[0].store / "blobs").iterdir())) == 1
    for name in (model, twin):
        assert release.ask(name).result(COLD_START).ends == 1


def test_a_runner_pod_pulls_its_own_weights(release: Release, model: str, registry: OllamaRegistry) -> None:
    release.add(model, source=registry.uri(), cache={"type": "ephemeral"})
    release.wait_phase(model, "Idle")
    registry.allow(32 * 2**20)
    answer = release.ask(model)
    release.wait_phase(model, "Pulling")
    until(lambda: _pulled(release.model(model)) > 2**20, COLD_START, what="a part of the weights", interval=POLL)
    assert not answer.done()
    registry.go_on.set()
    assert answer.result(COLD_START).text
    (runner,) = release.ready_pods(model)
    assert at(runner, "status", "initContainerStatuses", 0, "state", "terminated", "exitCode") == 0
    size = at(runner, "spec", "containers", 0, "resources", "requests", "ephemeral-storage")
    assert {"name": "store", "emptyDir": {"sizeLimit": size}} in list(at(runner, "spec", "volumes"))  # type: ignore[call-overload]
    claim = f"/api/v1/namespaces/{MODELS_NAMESPACE}/persistentvolumeclaims/model-{model}"
    assert release.cluster.api.find(claim) is None


def _pulled(found: Object) -> int:
    completed = at(found, "status", "pull", "completedBytes")
    return completed if isinstance(completed, int) else 0
