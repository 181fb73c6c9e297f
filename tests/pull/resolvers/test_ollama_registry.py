"""``ollama://`` against a real registry that the real ``ollama`` command pushes to and pulls from.

The command does not pull blobs that a registry sends without a redirect, so it pulls from ``RegistryFront``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from corral_core.base.errors import SourceError
from corral_core.contracts.source_defaults import SourceDefaults, SourceMessage
from corral_core.sources.forms import OllamaSource
from corral_server.pull.credentials import NO_CREDENTIALS, Credentials
from corral_server.pull.http.client import HttpClient
from corral_server.pull.remote_files import ResolvedSource
from corral_server.pull.resolvers.ollama import OllamaResolver
from tests.clients.ollama_program import ProgramError, program
from tests.pull.resolvers.pulled_bytes import PLAIN, http_client, pulled_bytes, smollm2
from tests.pull.servers.ollama_server import OllamaServer, ollama_server
from tests.pull.servers.registry import DockerRegistry, docker_registry
from tests.pull.servers.registry_front import RegistryFront

pytestmark = [pytest.mark.process, pytest.mark.clients, pytest.mark.timeout(1800)]

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER = "application/vnd.ollama.image"
MODELFILE = '''FROM {weights}
TEMPLATE """{{{{ .System }}}} {{{{ .Prompt }}}}"""
SYSTEM Be brief.
PARAMETER stop <|im_end|>
PARAMETER temperature 0.5
PARAMETER num_ctx 2048
MESSAGE user Hi
MESSAGE assistant Hello
LICENSE """Apache License"""
'''
DEFAULTS = SourceDefaults(
    template="{{ .System }} {{ .Prompt }}",
    system="Be brief.",
    parameters={"stop": ["<|im_end|>"], "temperature": 0.5, "num_ctx": 2048},
    messages=(SourceMessage("user", "Hi"), SourceMessage("assistant", "Hello")),
    licenses=("Apache License",),
)


@pytest.fixture(scope="module")
def weights() -> bytes:
    return smollm2()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaServer]:
    try:
        command = program()
    except ProgramError as error:
        if os.environ.get("CORRAL_REQUIRE_CLIENTS") == "1":
            pytest.fail(f"CORRAL_REQUIRE_CLIENTS=1, but {error}", pytrace=False)
        pytest.skip(str(error))
    with ollama_server(command, tmp_path_factory.mktemp("ollama")) as server:
        yield server


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with contextlib.closing(http_client()) as client:
        yield client


@pytest.fixture(scope="module")
def pushed(ollama: OllamaServer, registry: DockerRegistry, weights: bytes) -> Path:
    """Push a model with everything that a Modelfile can say by the command; return its manifest in Ollama's store.

    The command sends the manifest without the newline that ends the file.
    """
    file, modelfile = ollama.home / "weights.gguf", ollama.home / "Modelfile"
    file.write_bytes(weights)
    modelfile.write_text(MODELFILE.format(weights=file))
    name = f"{registry.host}/library/smollm2:135m"
    ollama.run("create", name, "-f", str(modelfile))
    ollama.run("push", "--insecure", name)
    return ollama.home / "models" / "manifests" / registry.host / "library" / "smollm2" / "135m"


def _resolve(
    client: HttpClient,
    host: str,
    model: str = "smollm2",
    *,
    tag: str = "135m",
    credentials: Credentials = NO_CREDENTIALS,
) -> ResolvedSource:
    source = OllamaSource(f"ollama://{host}/library/{model}:{tag}", host, "library", model, tag)
    return OllamaResolver(client, credentials, plain_http_hosts=PLAIN).resolve(source)


def test_model_that_the_command_pushed_has_the_same_digests(
    ollama: OllamaServer, registry: DockerRegistry, client: HttpClient, *, pushed: Path, weights: bytes
) -> None:
    resolved = _resolve(client, registry.host)
    sent = pushed.read_bytes().removesuffix(b"\n")
    assert resolved.pin == f"sha256:{hashlib.sha256(sent).hexdigest()}"
    (file,) = resolved.files
    assert (file.name, file.size) == ("smollm2-135m.gguf", len(weights))
    assert file.sha256 == hashlib.sha256(weights).hexdigest()
    assert pulled_bytes(client, file) == weights
    assert resolved.defaults == DEFAULTS


def _push_like_ollama(registry: DockerRegistry, weights: bytes) -> str:
    """Push a model by the test's own requests, and return the digest of its manifest."""
    config = json.dumps({"model_format": "gguf", "model_family": "llama", "os": "linux", "architecture": "amd64"})
    contents = {
        "model": weights,
        "template": DEFAULTS.template.encode(),
        "system": DEFAULTS.system.encode(),
        "params": json.dumps(DEFAULTS.parameters).encode(),
        "license": DEFAULTS.licenses[0].encode(),
    }
    layers = [registry.push_blob("library/ours", data, f"{LAYER}.{kind}") for kind, data in contents.items()]
    blob = registry.push_blob("library/ours", config.encode(), "application/vnd.docker.container.image.v1+json")
    manifest = {"config": blob, "layers": layers}
    return registry.push_manifest("library/ours", "1b", manifest, media_type=DOCKER_MANIFEST)


def test_command_pulls_what_the_resolver_reads(
    ollama: OllamaServer, registry: DockerRegistry, client: HttpClient, *, weights: bytes
) -> None:
    digest = _push_like_ollama(registry, weights)
    front = RegistryFront(registry.host)
    with front.running() as host:
        name = f"{host}/library/ours:1b"
        ollama.run("pull", "--insecure", name)
        resolved = _resolve(client, host, "ours", tag="1b")
        assert resolved.pin == digest
        assert pulled_bytes(client, resolved.files[0]) == weights
    shown = httpx.post(f"http://{ollama.host}/api/show", json={"model": name}, trust_env=False).json()
    assert (shown["template"], shown["system"], shown["license"]) == (
        resolved.defaults.template,
        resolved.defaults.system,
        resolved.defaults.licenses[0],
    )
    assert (ollama.home / "models" / "blobs" / f"sha256-{resolved.files[0].sha256}").stat().st_size == len(weights)


def test_private_model_needs_the_signature_that_the_command_sends(
    ollama: OllamaServer, registry: DockerRegistry, client: HttpClient, *, weights: bytes
) -> None:
    _push_like_ollama(registry, weights)
    folder: Path = ollama.home / ".ollama"
    front = RegistryFront(registry.host, keys=[(folder / "id_ed25519.pub").read_text()])
    with front.running() as host:
        ollama.run("pull", "--insecure", f"{host}/library/ours:1b")
        by_command = len(front.tokens)
        assert by_command > 0
        credentials = Credentials(ollama_key=(folder / "id_ed25519").read_text())
        (file,) = _resolve(client, host, "ours", tag="1b", credentials=credentials).files
        assert len(front.tokens) == by_command + 1
        assert pulled_bytes(client, file) == weights
        with pytest.raises(SourceError, match="the key of an Ollama account"):
            _resolve(client, host, "ours", tag="1b")
