"""``/api/blobs``: uploads of files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from corral_server.gateway.management.blobs import BlobRefused
from corral_server.gateway.management.management import Management
from corral_server.gateway.management.policy import CreationPolicy
from tests.support.gateway import MemoryDirectory, running_gateway
from tests.support.management import OPEN, MemoryBlobs, MemoryModels, blob_digest, management
from tests.support.waiting import auntil

CONTENT = b"weights" * 100_000
DIGEST = blob_digest(CONTENT)
OTHER = blob_digest(b"other")


def managed(blobs: MemoryBlobs | None, policy: CreationPolicy = OPEN) -> Management:
    return management(MemoryModels(MemoryDirectory()), blobs, policy=policy)


async def test_a_blob_is_stored_once_and_known_afterwards() -> None:
    blobs = MemoryBlobs()
    async with running_gateway(MemoryDirectory(), management=managed(blobs)) as gateway:
        path = f"/api/blobs/{DIGEST}"
        statuses = [
            (await gateway.http.head(path)).status_code,
            (await gateway.http.post(path, content=CONTENT)).status_code,
            (await gateway.http.head(path)).status_code,
            (await gateway.http.post(path, content=b"")).status_code,
        ]
    assert statuses == [404, 201, 200, 200]
    assert blobs.contents == {DIGEST: CONTENT}


async def test_content_with_another_digest_is_refused_with_ollamas_text() -> None:
    blobs = MemoryBlobs()
    async with running_gateway(MemoryDirectory(), management=managed(blobs)) as gateway:
        answer = await gateway.http.post(f"/api/blobs/{DIGEST}", content=b"other")
    text = f'digest mismatch, expected "{DIGEST}", got "{OTHER}"'
    assert (answer.status_code, answer.json()) == (400, {"error": text})
    assert blobs.contents == {}


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_a_text_that_is_no_digest_is_refused(method: str) -> None:
    async with running_gateway(MemoryDirectory(), management=managed(MemoryBlobs())) as gateway:
        answer = await gateway.http.request(method, "/api/blobs/sha256:12")
    assert answer.status_code == 400
    assert method == "HEAD" or answer.json() == {"error": "invalid digest format"}


async def test_a_blob_larger_than_a_request_body_may_be_is_passed_on_in_pieces() -> None:
    blobs = MemoryBlobs()
    async with running_gateway(MemoryDirectory(), body_limit=10_000, management=managed(blobs)) as gateway:
        answer = await gateway.http.post(f"/api/blobs/{DIGEST}", content=CONTENT)
    assert answer.status_code == 201
    assert blobs.largest < len(CONTENT)


async def test_a_client_that_leaves_stores_nothing() -> None:
    ended = asyncio.Event()

    class Blobs(MemoryBlobs):
        async def write(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
            try:
                await super().write(digest, chunks)
            finally:
                ended.set()

    blobs = Blobs()
    async with running_gateway(MemoryDirectory(), management=managed(blobs)) as gateway:
        _, writer = await gateway.connect()
        head = f"POST /api/blobs/{DIGEST} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(CONTENT)}\r\n\r\n"
        writer.write(head.encode() + CONTENT[:100])
        await writer.drain()
        await auntil(lambda: blobs.largest > 0, what="the first bytes arrive")
        writer.close()
        await asyncio.wait_for(ended.wait(), 30)
    assert blobs.contents == {}


async def test_without_a_place_for_uploads_none_is_taken() -> None:
    async with running_gateway(MemoryDirectory(), management=managed(None)) as gateway:
        assert (await gateway.http.head(f"/api/blobs/{DIGEST}")).status_code == 404
        answer = await gateway.http.post(f"/api/blobs/{DIGEST}", content=CONTENT)
    assert answer.status_code == 501
    assert "models.blobs" in answer.json()["error"]


async def test_the_policy_is_checked_before_the_body_is_read() -> None:
    blobs = MemoryBlobs()
    async with running_gateway(MemoryDirectory(), management=managed(blobs, CreationPolicy())) as gateway:
        answer = await gateway.http.post(f"/api/blobs/{DIGEST}", content=CONTENT)
    assert answer.status_code == 403
    assert blobs.largest == 0


async def test_a_store_that_is_full_answers_with_its_status() -> None:
    class Full(MemoryBlobs):
        async def write(self, digest: str, chunks: AsyncIterator[bytes]) -> None:
            raise BlobRefused(507, "the store has no room for the file")

    async with running_gateway(MemoryDirectory(), management=managed(Full())) as gateway:
        answer = await gateway.http.post(f"/api/blobs/{DIGEST}", content=CONTENT)
    assert (answer.status_code, answer.json()) == (507, {"error": "the store has no room for the file"})
