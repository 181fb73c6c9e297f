"""Blobs in a repository of a registry: a real one, and one that answers as the test says."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from corral_core.sources.forms import OciSource
from corral_core.sources.uri import parse_source
from corral_server.gateway.management.blobs import BlobRefused, DigestMismatch
from corral_server.gateway.management.oci import blobs as blobs_module
from corral_server.gateway.management.oci.blobs import RegistryBlobs, open_registry_blobs
from corral_server.gateway.management.oci.repository import BlobRepository
from corral_server.pull.credentials import Credentials
from corral_server.pull.remote_files import FileRole
from corral_server.pull.resolvers.oci import OciResolver
from tests.pull.resolvers.pulled_bytes import http_client
from tests.pull.servers.registry import DockerRegistry, docker_registry
from tests.pull.servers.token_server import TokenServer

USER = ("gateway", "secret of the test")
CONTENT = b"GGUF" + bytes(range(256)) * 300
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def pieces(content: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def secret(folder: Path) -> Path:
    """Write a Secret as the kubelet mounts it."""
    (folder / "username").write_text(f"{USER[0]}\n")
    (folder / "password").write_text(f"{USER[1]}\n")
    return folder


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry"), user=USER) as registry:
        yield registry


@pytest.fixture
async def store(registry: DockerRegistry, tmp_path: Path) -> AsyncIterator[RegistryBlobs]:
    async with open_registry_blobs(BlobRepository(registry.host, "corral/blobs", "http", secret(tmp_path))) as store:
        yield store


@pytest.mark.process
async def test_a_blob_in_parts_is_a_source_that_the_pullers_resolve(
    store: RegistryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "PART_SIZE", 32_000)
    assert not await store.has(DIGEST)
    await store.write(DIGEST, pieces(CONTENT))
    assert await store.has(DIGEST)
    source = parse_source(store.source(DIGEST))
    assert isinstance(source, OciSource)
    credentials = Credentials(username=USER[0], password=USER[1])
    [file] = OciResolver(http_client(), credentials, plain_http_hosts=("127.0.0.1",)).resolve(source).files
    assert (file.role, file.sha256, file.size) == (FileRole.WEIGHTS, DIGEST.removeprefix("sha256:"), len(CONTENT))


@pytest.mark.process
async def test_content_with_another_digest_is_refused_with_ollamas_text(store: RegistryBlobs) -> None:
    other = f"sha256:{'0' * 64}"
    with pytest.raises(DigestMismatch, match=f'digest mismatch, expected "{other}", got "{DIGEST}"'):
        await store.write(other, pieces(CONTENT))
    assert not await store.has(other)


@pytest.mark.process
async def test_an_error_of_the_client_ends_the_upload_and_passes_unchanged(store: RegistryBlobs) -> None:
    class Gone(Exception):
        pass

    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT[:100]
        raise Gone

    digest = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    with pytest.raises(Gone):
        await store.write(digest, broken())
    assert not await store.has(digest)


@pytest.mark.process
async def test_a_wrong_password_says_who_can_correct_it(registry: DockerRegistry, tmp_path: Path) -> None:
    folder = secret(tmp_path)
    (folder / "password").write_text("wrong")
    async with open_registry_blobs(BlobRepository(registry.host, "corral/blobs", "http", folder)) as store:
        with pytest.raises(BlobRefused, match=r"denied access to corral/blobs .*models\.blobs\.secret"):
            await store.write(DIGEST, pieces(CONTENT))


@pytest.mark.process
async def test_a_registry_with_a_token_server_takes_a_blob(tmp_path: Path) -> None:
    tokens = TokenServer(tmp_path, USER, refresh_token="refresh")
    with tokens.running() as settings, docker_registry(tmp_path, tokens=settings) as registry:
        repository = BlobRepository(registry.host, "corral/blobs", "http", secret(tmp_path))
        async with open_registry_blobs(repository) as store:
            await store.write(DIGEST, pieces(CONTENT))
            assert await store.has(DIGEST)


@asynccontextmanager
async def scripted(handler: Handler) -> AsyncIterator[RegistryBlobs]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    try:
        async with open_registry_blobs(BlobRepository(f"127.0.0.1:{server.port}", "blobs", "http")) as store:
            yield store
    finally:
        await server.close()


async def test_an_upload_does_not_continue_at_another_server() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=202, headers={"Location": "http://elsewhere.test/upload"})

    async with scripted(handler) as store:
        with pytest.raises(BlobRefused, match=r"continues an upload at http://elsewhere\.test") as refused:
            await store.write(DIGEST, pieces(CONTENT))
    assert refused.value.status == 502


async def test_a_registry_that_fails_is_a_reason_to_try_again() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"errors": [{"code": "UNAVAILABLE", "message": "the disk is full"}]}, status=503)

    async with scripted(handler) as store:
        with pytest.raises(BlobRefused, match=r"status 503 \(the disk is full\); please try again") as refused:
            await store.has(DIGEST)
    assert refused.value.status == 503


async def test_a_registry_that_cannot_be_reached_is_a_reason_to_try_again() -> None:
    async with open_registry_blobs(BlobRepository("127.0.0.1:1", "blobs", "http")) as store:
        with pytest.raises(BlobRefused, match="cannot be reached") as refused:
            await store.has(DIGEST)
    assert refused.value.status == 503


async def test_a_part_is_sent_again_when_the_token_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "PART_SIZE", 32_000)
    received, tokens, valid = bytearray(), 0, ""

    async def handler(request: web.Request) -> web.Response:
        nonlocal tokens, valid
        if request.path == "/token":
            tokens += 1
            valid = f"token-{tokens}"
            return web.json_response({"token": valid})
        if request.headers.get("Authorization") != f"Bearer {valid}" or not valid:
            realm = f'Bearer realm="http://{request.host}/token",service="test"'
            return web.Response(status=401, headers={"WWW-Authenticate": realm})
        if request.method == "PATCH":
            received.extend(await request.read())
            valid = "" if len(received) == 32_000 else valid
        status = 202 if request.method in ("POST", "PATCH") else 201
        return web.Response(status=status, headers={"Location": "/v2/blobs/upload"})

    async with scripted(handler) as store:
        await store.write(DIGEST, pieces(CONTENT))
    assert bytes(received) == CONTENT + b"{}"
    assert tokens == 2
