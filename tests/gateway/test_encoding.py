from __future__ import annotations

import json

import httpx
import pytest
import zstandard

from corral_server.gateway.encoding import MAX_PLAIN
from tests.support.fake_upstream import FakeUpstream, reply
from tests.support.gateway import gateway_over, run

BODY = json.dumps({"model": "tiny", "input": "hi " * 1000}).encode()


def ask(path: str, body: bytes, *, encoding: str = "zstd") -> tuple[httpx.Response, FakeUpstream]:
    results: list[tuple[httpx.Response, FakeUpstream]] = []

    async def scenario() -> None:
        async with gateway_over(reply()) as (up, gateway):
            answer = await gateway.http.post(path, content=body, headers={"content-encoding": encoding})
            results.append((answer, up))

    run(scenario())
    return results[0]


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/messages"])
def test_the_runner_gets_a_compressed_body_plain(path: str) -> None:
    answer, up = ask(path, zstandard.compress(BODY), encoding="ZSTD")
    assert answer.status_code == 200
    (call,) = up.calls
    assert call.body == BODY
    assert call.headers["content-length"] == str(len(BODY))
    assert "content-encoding" not in call.headers


def test_frames_one_after_the_other_are_one_body() -> None:
    _, up = ask("/v1/responses", zstandard.compress(BODY[:100]) + zstandard.compress(BODY[100:]))
    assert up.calls[0].body == BODY


@pytest.mark.parametrize("body", [BODY, zstandard.compress(BODY)[:-1] + b"x", zstandard.compress(BODY)[:20]])
def test_a_body_that_is_no_zstd_is_refused(body: bytes) -> None:
    answer, up = ask("/v1/responses", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert up.calls == []


def test_a_small_body_cannot_become_a_huge_one() -> None:
    bomb = zstandard.compress(b" " * (MAX_PLAIN + 1))
    assert len(bomb) < 4096
    answer, up = ask("/v1/responses", bomb)
    assert answer.status_code == 413
    assert up.calls == []


def test_ollamas_own_paths_take_no_compressed_bodies() -> None:
    answer, up = ask("/api/chat", zstandard.compress(BODY))
    assert answer.status_code == 400
    assert up.calls == []
