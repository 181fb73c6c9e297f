"""Pull from a real registry to the files that a runner opens."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from corral_core.sources.locate import WeightsRoots, locate_weights, weight_parts
from corral_core.sources.uri import parse_source
from corral_server.pull.credentials import Credentials
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.puller import Puller
from corral_server.pull.store import WeightsStore
from tests.pull.fake_registry import tar_bytes
from tests.pull.servers.registry import DockerRegistry, docker_registry
from tests.support.gguf_split import split_gguf
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.process

USER = ("person", "secret of the test")
REPOSITORY = "team/tiny"
OLLAMA, DOCKER = "application/vnd.ollama.image", "application/vnd.docker.ai"
CONFIGS = {"ollama": "application/vnd.docker.container.image.v1+json", "oci": f"{DOCKER}.model.config.v0.1+json"}
LAYERS = {"ollama": f"{OLLAMA}.model", "oci": f"{DOCKER}.gguf.v3"}


def _pulled(registry: DockerRegistry, uri: str, store: Path) -> list[Path]:
    """Pull with a docker config and return the parts of the weights as a runner finds them."""
    login = {"auth": base64.b64encode(":".join(USER).encode()).decode()}
    credentials = Credentials(docker_config=json.dumps({"auths": {registry.host: login}}))
    network = NetworkSettings(plain_http_hosts=frozenset({registry.host}))
    transports, weights_store = NetworkTransports(network, credentials), WeightsStore(store)
    snapshot = Puller(weights_store, transports, Downloader(weights_store, transports)).pull(uri)
    roots = WeightsRoots(store=store, snapshots={uri: snapshot.id})
    return weight_parts(locate_weights(parse_source(uri), roots))


def _push(registry: DockerRegistry, scheme: str, contents: list[bytes]) -> str:
    layers = [registry.push_blob(REPOSITORY, content, LAYERS[scheme]) for content in contents]
    config = registry.push_blob(REPOSITORY, b"{}", CONFIGS[scheme])
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    registry.push_manifest(REPOSITORY, scheme, {"config": config, "layers": layers}, media_type=media_type)
    return f"{scheme}://{registry.host}/{REPOSITORY}:{scheme}"


@pytest.mark.parametrize("scheme", LAYERS)
@pytest.mark.parametrize("count", [1, 3])
def test_parts_of_weights_arrive_with_names_that_belong_together(tmp_path: Path, scheme: str, count: int) -> None:
    tiny = write_tiny_model(tmp_path)
    parts = [tiny] if count == 1 else split_gguf(tiny, tmp_path, parts=count)
    with docker_registry(tmp_path, user=USER) as registry:
        uri = _push(registry, scheme, [part.read_bytes() for part in parts])
        found = _pulled(registry, uri, tmp_path / "store")
    assert [path.read_bytes() for path in found] == [part.read_bytes() for part in parts]


def test_parts_in_one_tar_layer_are_extracted(tmp_path: Path) -> None:
    parts = {path.name: path.read_bytes() for path in split_gguf(write_tiny_model(tmp_path), tmp_path, parts=2)}
    with docker_registry(tmp_path, user=USER) as registry:
        archive = tar_bytes({f"./models/{name}": content for name, content in parts.items()})
        layer = registry.push_blob(REPOSITORY, archive, "application/vnd.oci.image.layer.v1.tar")
        config = registry.push_blob(REPOSITORY, b"{}", "application/vnd.oci.image.config.v1+json")
        registry.push_manifest(REPOSITORY, "image", {"config": config, "layers": [layer]})
        found = _pulled(registry, f"oci://{registry.host}/{REPOSITORY}:image", tmp_path / "store")
    assert {path.name: path.read_bytes() for path in found} == parts
