"""Verbose show: relayed from a ready runner, answered from stored metadata without one."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

import pytest

from corral_server.gateway.api import verbose_show
from corral_server.gateway.directory.directory import ModelEntry
from tests.support.fake_upstream import Call, fake_upstream, reply
from tests.support.gateway import MemoryDirectory, entry, raw_request, running_gateway
from tests.support.waiting import auntil

ASKED = {"model": "Tiny", "verbose": True}
TOLD = b'{"model_info":{"tokenizer.ggml.tokens":["a"]},"tensors":[]}'


async def _ask(*entries: ModelEntry, body: object = ASKED) -> tuple[int, dict[str, object], MemoryDirectory]:
    directory = MemoryDirectory.of(*entries)
    async with running_gateway(directory) as gateway:
        answer = await gateway.http.post("/api/show", json=body, headers={"user-agent": "me/1"})
    return answer.status_code, answer.json(), directory


async def test_a_verbose_show_is_relayed_from_a_ready_runner_without_a_slot() -> None:
    async with fake_upstream(reply(200, TOLD)) as up:
        status, told, directory = await _ask(entry("tiny", up.port, slots=0))
    assert (status, told, directory.demands) == (200, json.loads(TOLD), [])
    call = up.calls[0]
    assert (call.method, call.path, json.loads(call.body)) == ("POST", "/api/show", ASKED)
    assert (call.headers["corral-modified"], call.headers["user-agent"]) == ("1750000000.250000", "me/1")


async def test_a_verbose_show_of_a_cold_model_comes_from_stored_metadata() -> None:
    status, told, directory = await _ask(entry("tiny"))
    info = told["model_info"]
    assert isinstance(info, dict)
    assert (status, info["tokenizer.ggml.tokens"], "tensors" in told) == (200, None, False)
    assert directory.demands == []


async def test_runners_that_are_unreachable_fail_or_time_out_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbose_show, "TIMEOUT", 0.2)

    async def silent(call: Call) -> None:
        await call.wait_closed()

    async with (
        fake_upstream(reply(500)) as failing,
        fake_upstream(silent) as mute,
        fake_upstream(reply(200, TOLD)) as up,
    ):
        status, told, _ = await _ask(entry("tiny", 1, failing.port, mute.port, up.port))
        assert (status, told) == (200, json.loads(TOLD))
        status, told, _ = await _ask(entry("tiny", 1, failing.port))
        assert (status, "tensors" in told) == (200, False)


async def test_a_large_response_is_relayed_no_faster_than_the_client_reads() -> None:
    sent = 0

    async def large(call: Call) -> None:
        nonlocal sent
        await call.head(200, {"content-type": "application/json", "transfer-encoding": "chunked"})
        while True:
            await call.chunk(b"1" * 65536)
            sent += 65536

    async with (
        fake_upstream(large) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), drain=0.1) as gateway,
    ):
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(raw_request("/api/show", json.dumps(ASKED).encode()))
            await auntil(lambda: sent > 1024 * 1024)
            await auntil(_stands(lambda: sent), what="the runner waits for the client")
            assert sent < 64 * 1024 * 1024
        await auntil(lambda: not up.running, what="the client's leaving is the runner's end")


def _stands(level: Callable[[], int]) -> Callable[[], bool]:
    """Whether it has been the same for a moment in which megabytes would have come."""
    seen, since = level(), time.monotonic()

    def stands() -> bool:
        nonlocal seen, since
        if level() != seen:
            seen, since = level(), time.monotonic()
        return time.monotonic() - since > 0.2

    return stands


async def test_a_show_that_is_not_verbose_sends_no_request() -> None:
    async with fake_upstream(reply(200, TOLD)) as up:
        for body in ({"model": "tiny"}, {"model": "tiny", "verbose": False}, {"model": "tiny", "verbose": None}):
            status, told, _ = await _ask(entry("tiny", up.port), body=body)
            assert (status, "tensors" in told) == (200, False)
    assert up.calls == []


async def test_verbose_must_be_a_boolean_and_the_name_is_checked_first() -> None:
    status, told, _ = await _ask(entry("tiny"), body={"model": "tiny", "verbose": "yes"})
    error = "json: cannot unmarshal string into Go struct field ShowRequest.verbose of type bool"
    assert (status, told) == (400, {"error": error})
    status, told, _ = await _ask(entry("tiny"), body={"model": "a//b", "verbose": True})
    assert (status, told) == (400, {"error": "invalid model name"})
