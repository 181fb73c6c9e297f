"""Compressed request bodies."""

from __future__ import annotations

import json

import httpx
import pytest
import zstandard

from corral_server.gateway.bodies.compression import MAX_DECOMPRESSED
from tests.support.fake_upstream import FakeUpstream, reply
from tests.support.gateway import gateway_with_upstream

BODY = json.dumps({"model": "tiny", "input": "hi " * 1000}).encode()


async def ask(path: str, body: bytes, *, encoding: str = "zstd") -> tuple[httpx.Response, FakeUpstream]:
    async with gateway_with_upstream(reply()) as (up, gateway):
        response = await gateway.http.post(path, content=body, headers={"content-encoding": encoding})
        return response, up


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/messages"])
async def test_the_runner_gets_a_decompressed_body(path: str) -> None:
    answer, up = await ask(path, zstandard.compress(BODY), encoding="ZSTD")
    assert answer.status_code == 200
    (call,) = up.calls
    assert call.body == BODY
    assert call.headers["content-length"] == str(len(BODY))
    assert "content-encoding" not in call.headers


async def test_consecutive_zstd_frames_are_one_body() -> None:
    _, up = await ask("/v1/responses", zstandard.compress(BODY[:100]) + zstandard.compress(BODY[100:]))
    assert up.calls[0].body == BODY


@pytest.mark.parametrize("body", [BODY, zstandard.compress(BODY)[:-1] + b"x", zstandard.compress(BODY)[:20]])
async def test_a_body_that_is_not_zstd_is_rejected(body: bytes) -> None:
    answer, up = await ask("/v1/responses", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert up.calls == []


async def test_the_size_after_decompression_is_limited() -> None:
    bomb = zstandard.compress(b" " * (MAX_DECOMPRESSED + 1))
    assert len(bomb) < 4096
    answer, up = await ask("/v1/responses", bomb)
    assert answer.status_code == 413
    assert up.calls == []


async def test_native_paths_accept_no_compressed_bodies() -> None:
    answer, up = await ask("/api/chat", zstandard.compress(BODY))
    assert answer.status_code == 400
    assert up.calls == []
