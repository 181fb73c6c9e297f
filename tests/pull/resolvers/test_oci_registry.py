"""``oci://`` against a real registry, with the same weights as an artifact of each kind."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import zstandard

from corral_core.base.errors import SourceError
from corral_core.model.model import ModelSpec
from corral_core.sources.forms import OciSource
from corral_core.sources.locate import WeightsRoots
from corral_core.sources.snapshot import FileRole, SnapshotFile
from corral_server.pull.credentials import NO_CREDENTIALS, Credentials
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.errors import LocationExpired
from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.pod.inspect import inspect
from corral_server.pull.puller import Puller
from corral_server.pull.remote_files import HttpLocation, ResolvedSource
from corral_server.pull.remote_metadata import read_remote_metadata
from corral_server.pull.resolvers.oci import OciResolver
from corral_server.pull.store import WeightsStore
from tests.pull.fake_registry import tar_bytes
from tests.pull.resolvers.pulled_bytes import PLAIN, http_client, pulled_bytes, smollm2
from tests.pull.servers.registry import DockerRegistry, docker_registry
from tests.pull.servers.registry_front import RegistryFront
from tests.pull.servers.token_server import TokenServer
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.process

REPOSITORY = "team/smollm2"
NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
USER = ("person", "secret of the test")
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
Push = Callable[[DockerRegistry, bytes], object]


@pytest.fixture(scope="module")
def weights() -> bytes:
    return smollm2()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with contextlib.closing(http_client()) as client:
        yield client


def _resolve(
    client: HttpClient, host: str, *, tag: str = "latest", credentials: Credentials = NO_CREDENTIALS, pin: str = ""
) -> ResolvedSource:
    source = OciSource(f"oci://{host}/{REPOSITORY}:{tag}", host, REPOSITORY, tag)
    return OciResolver(client, credentials, plain_http_hosts=PLAIN).resolve(source, pin=pin)


def _push(
    registry: DockerRegistry,
    tag: str,
    data: bytes,
    *,
    layer: str,
    config: str,
    path: str = "",
    manifest: str = "application/vnd.oci.image.manifest.v1+json",
    artifact: str = "",
) -> str:
    """Push an artifact with one layer."""
    layers = [registry.push_blob(REPOSITORY, data, layer, path=path)]
    fields: dict[str, object] = {"config": registry.push_blob(REPOSITORY, b"{}", config), "layers": layers}
    fields |= {"artifactType": artifact} if artifact else {}
    return registry.push_manifest(REPOSITORY, tag, fields, media_type=manifest)


def _modelpack(suffix: str, pack: Callable[[bytes], bytes]) -> Push:
    return lambda registry, weights: _push(
        registry,
        f"modelpack-{suffix.replace('+', '-')}",
        pack(weights),
        layer=f"application/vnd.cncf.model.weight.v1.{suffix}",
        config="application/vnd.cncf.model.config.v1+json",
        path=NAME,
        artifact="application/vnd.cncf.model.manifest.v1+json",
    )


def _image(registry: DockerRegistry, weights: bytes) -> str:
    layer = gzip.compress(tar_bytes({"models/": b"", f"models/{NAME}": weights}), 1)
    config = "application/vnd.docker.container.image.v1+json"
    return _push(registry, "image", layer, layer=DOCKER_LAYER, config=config, manifest=DOCKER_MANIFEST)


def _index(registry: DockerRegistry, weights: bytes) -> str:
    entries = []
    for architecture, content in (("amd64", weights), ("arm64", weights), ("s390x", b"")):
        layer = tar_bytes({"./models/": b"", f"./models/{NAME}": content, "etc/architecture": architecture.encode()})
        digest = _push(
            registry,
            architecture,
            layer,
            layer="application/vnd.docker.image.rootfs.diff.tar",
            config="application/vnd.docker.container.image.v1+json",
            manifest=DOCKER_MANIFEST,
        )
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": DOCKER_MANIFEST, "digest": digest, "size": 500, "platform": platform})
    return registry.push_manifest(REPOSITORY, "index", {"manifests": entries}, media_type=DOCKER_LIST)


def _packed(weights: bytes) -> bytes:
    return tar_bytes({NAME: weights})


KINDS: Mapping[str, Push] = {
    "modelpack-raw": _modelpack("raw", lambda data: data),
    "modelpack-tar": _modelpack("tar", _packed),
    "modelpack-tar-gzip": _modelpack("tar+gzip", lambda data: gzip.compress(_packed(data), 1)),
    "modelpack-tar-zstd": _modelpack("tar+zstd", lambda data: zstandard.compress(_packed(data), 1)),
    "docker": lambda registry, weights: _push(
        registry,
        "docker",
        weights,
        layer="application/vnd.docker.ai.gguf.v3",
        config="application/vnd.docker.ai.model.config.v0.1+json",
    ),
    "kitops": lambda registry, weights: _push(
        registry,
        "kitops",
        _packed(weights),
        layer="application/vnd.kitops.modelkit.model.v1.tar",
        config="application/vnd.kitops.modelkit.config.v1+json",
    ),
    "ramalama": lambda registry, weights: _push(
        registry,
        "ramalama",
        weights,
        layer="application/octet-stream",
        config="application/vnd.oci.empty.v1+json",
        path=NAME,
        artifact="application/vnd.cncf.model.manifest.v1+json",
    ),
    "image": _image,
    "index": _index,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_artifact_brings_the_same_weights(
    registry: DockerRegistry, client: HttpClient, *, weights: bytes, kind: str
) -> None:
    digest = KINDS[kind](registry, weights)
    resolved = _resolve(client, registry.host, tag=kind)
    assert (resolved.pin == digest) == (kind != "index")
    (file,) = resolved.files
    name = "smollm2-docker.gguf" if kind == "docker" else NAME
    found = read_remote_metadata(resolved, client, lambda _file: None)
    assert found is not None, "read before the download"
    assert (found.family, found.size, file.stored_size) == ("llama", len(weights), len(weights))
    with tempfile.TemporaryDirectory() as folder:
        downloader = Downloader(WeightsStore(Path(folder)), client)
        pulled = downloader.fetch(file, lambda progress: None)
    assert pulled == SnapshotFile(name, FileRole.WEIGHTS, hashlib.sha256(weights).hexdigest(), len(weights))


def test_compressed_weights_are_inspected_before_the_download(registry: DockerRegistry, tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path).read_bytes()
    KINDS["modelpack-tar-gzip"](registry, weights)
    network = NetworkTransports(NetworkSettings(plain_http_hosts=frozenset({registry.host})), NO_CREDENTIALS)
    store = WeightsStore(tmp_path / "store")
    puller = Puller(store, network, Downloader(store, network))
    spec = ModelSpec.model_validate({"source": f"oci://{registry.host}/{REPOSITORY}:modelpack-tar-gzip"})
    report = inspect(spec, {}, puller, roots=WeightsRoots())
    (file,) = puller.resolve(spec.source).files
    assert (report.metadata.family, report.metadata.size) == ("llama", len(weights))
    assert report.resolved is not None
    assert report.resolved.total == len(weights) + (file.size or 0), "room for the archive and for its file"
    assert not store.root.exists()


def test_blobs_behind_a_redirect_to_another_host(registry: DockerRegistry, client: HttpClient) -> None:
    KINDS["docker"](registry, b"GGUF of a small model")
    front = RegistryFront(registry.host)
    with front.running() as host:
        (file,) = _resolve(client, host, tag="docker").files
        assert pulled_bytes(client, file) == b"GGUF of a small model"
    assert front.redirected == 2


def test_pin_keeps_the_content_of_a_tag_that_moved(registry: DockerRegistry, client: HttpClient) -> None:
    push = KINDS["docker"]
    push(registry, b"GGUF 1")
    pin = _resolve(client, registry.host, tag="docker").pin
    push(registry, b"GGUF 2")
    (file,) = _resolve(client, registry.host, tag="docker", pin=pin).files
    assert pulled_bytes(client, file) == b"GGUF 1"


def test_missing_tag_is_an_error(registry: DockerRegistry, client: HttpClient) -> None:
    with pytest.raises(SourceError, match=r"has no 'missing' of 'team/smollm2': check name and tag"):
        _resolve(client, registry.host, tag="missing")


def test_basic_authentication(tmp_path: Path, client: HttpClient) -> None:
    with docker_registry(tmp_path, user=USER) as registry:
        KINDS["docker"](registry, b"GGUF of a small model")
        with pytest.raises(SourceError, match="requires authentication"):
            _resolve(client, registry.host, tag="docker")
        with pytest.raises(SourceError, match="check that the credentials are valid"):
            _resolve(client, registry.host, tag="docker", credentials=Credentials(username=USER[0], password="wrong"))
        (file,) = _resolve(client, registry.host, tag="docker", credentials=_docker_config(registry.host)).files
        assert pulled_bytes(client, file) == b"GGUF of a small model"


@contextlib.contextmanager
def _token_registry(folder: Path) -> Iterator[tuple[DockerRegistry, TokenServer]]:
    """Run a registry with one artifact that demands tokens, and its token server."""
    server = TokenServer(folder, USER, refresh_token="refresh token of the test")
    with server.running() as settings:
        push = server.token([f"repository:{REPOSITORY}:pull,push"], settings.service)
        with docker_registry(folder, tokens=settings, headers={"Authorization": f"Bearer {push}"}) as registry:
            KINDS["docker"](registry, b"GGUF of a small model")
            yield registry, server


def _docker_config(host: str, **entry: str) -> Credentials:
    entry = entry or {"auth": base64.b64encode(":".join(USER).encode()).decode()}
    return Credentials(docker_config=json.dumps({"auths": {host: entry}}))


def test_token_authentication(tmp_path: Path, client: HttpClient) -> None:
    with _token_registry(tmp_path) as (registry, server):
        ways = {
            "GET": [Credentials(username=USER[0], password=USER[1]), _docker_config(registry.host)],
            "POST": [_docker_config(registry.host, identitytoken="refresh token of the test")],
        }
        for method, all_credentials in ways.items():
            for credentials in all_credentials:
                server.methods.clear()
                (file,) = _resolve(client, registry.host, tag="docker", credentials=credentials).files
                assert pulled_bytes(client, file) == b"GGUF of a small model"
                assert server.methods == [method]


def test_token_server_that_refuses_or_gives_no_access(tmp_path: Path, client: HttpClient) -> None:
    with _token_registry(tmp_path) as (registry, _):
        with pytest.raises(SourceError, match="needs credentials"):
            _resolve(client, registry.host, tag="docker")
        for wrong in (
            Credentials(username=USER[0], password="wrong"),
            _docker_config(registry.host, identitytoken="x"),
        ):
            with pytest.raises(SourceError, match="check that the credentials are valid") as error:
                _resolve(client, registry.host, tag="docker", credentials=wrong)
            assert "wrong" not in str(error.value)


def test_location_with_an_expired_token_is_resolved_again(tmp_path: Path, client: HttpClient) -> None:
    credentials = Credentials(username=USER[0], password=USER[1])
    with _token_registry(tmp_path) as (registry, server):
        resolved = _resolve(client, registry.host, tag="docker", credentials=credentials)
        location = resolved.files[0].location
        assert isinstance(location, HttpLocation)
        server.valid_for = -100
        expired = server.token([f"repository:{REPOSITORY}:pull"], "registry.test")
        with pytest.raises(LocationExpired):
            client.open(HttpLocation(location.url, {"Authorization": f"Bearer {expired}"}))
        server.valid_for = 300
        again = _resolve(client, registry.host, tag="docker", credentials=credentials, pin=resolved.pin)
        assert pulled_bytes(client, again.files[0]) == b"GGUF of a small model"
