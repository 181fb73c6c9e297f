"""Image volumes on a real node: the kubelet pulls the image of a source and mounts it into the runner."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest

from tests.cluster.api import at, condition
from tests.node.real_node import GATEWAY
from tests.node.release import MODELS_NAMESPACE, Release
from tests.pull.servers.registry import docker_registry
from tests.support.gguf_split import split_gguf
from tests.support.tiny_model import write_tiny_model

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]


@pytest.fixture
def image(release: Release, tmp_path: Path) -> Iterator[str]:
    """The URI of an image with the parts of a small model, in a registry that pods and the node reach without TLS."""
    plain = [{"name": "CORRAL_PLAIN_HTTP_HOSTS", "value": GATEWAY}]  # with any port: other tests' registries too
    release.upgrade("--set-json", f"puller.env={json.dumps(plain)}")
    parts = split_gguf(write_tiny_model(tmp_path), tmp_path, parts=2)
    with docker_registry(tmp_path, address=GATEWAY) as registry:
        for node in release.cluster.nodes:
            node.allow_plain_http(registry.host)
        yield registry.push_image({f"models/{part.name}": part.read_bytes() for part in parts})


def test_an_image_is_mounted_without_a_claim_and_without_a_puller(release: Release, image: str, model: str) -> None:
    release.add(model, source=image, cache={"type": "image"})
    with release.ollama() as client:
        answer = client.generate(model, "Hello", options=ollama.Options(num_predict=4))
    assert answer.eval_count == 4
    pulled = condition(release.model(model), "Pulled")
    assert (pulled["status"], pulled["reason"]) == ("True", "ImageVolume")
    (runner,) = release.ready_pods(model)
    volumes = at(runner, "spec", "volumes")
    assert isinstance(volumes, list)
    (mounted,) = [volume["image"]["reference"] for volume in volumes if "image" in volume]
    assert mounted.rpartition("@")[0] == image.removeprefix("oci://").rpartition(":")[0]
    assert not any("persistentVolumeClaim" in volume for volume in volumes)
    folder = f"/api/v1/namespaces/{MODELS_NAMESPACE}"
    assert release.cluster.api.find(f"{folder}/persistentvolumeclaims/model-{model}") is None
    events = release.cluster.api.items(f"{folder}/events")
    assert f"model-{model}-pull" not in {at(event, "involvedObject", "name") for event in events}
