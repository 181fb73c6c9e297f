"""One line a request: what it says, what it never says, and that a flood of requests is no flood of lines."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from corral_core.jsonlog import JsonLines
from corral_server.gateway.access_log import AccessLog
from corral_server.gateway.directory import Entry
from tests.gateway.test_keys import ALICE, BOB, bearer, key_file
from tests.support.fake_upstream import Behaviour, fake_upstream, reply, stream
from tests.support.gateway import MemoryDirectory, endpoint, entry, raw_request, run, running_gateway

Line = dict[str, object]

NATIVE = b'{"done":true,"prompt_eval_count":12,"prompt_eval_duration":5,"eval_count":34}\n'
OPENAI = b'data: {"usage":{"prompt_tokens":7,"completion_tokens":8,"total_tokens":15}}\n\n'


async def lines_of(*answers: Behaviour, rate: int = 100, requests: int = 1, **fields: object) -> list[Line]:
    lines: list[Line] = []
    log = AccessLog(rate, write=lambda name, **said: lines.append({"event": name, **said}), clock=lambda: 1.0)
    async with fake_upstream(*answers) as upstream:
        directory = MemoryDirectory.of(entry("tiny", upstream.port))
        async with running_gateway(directory, sinks=[log]) as gateway:
            for _ in range(requests):
                await gateway.chat(**fields)  # type: ignore[arg-type]  # fields of the body
    return lines


def test_requests_that_concern_no_model_have_a_line_too_and_probes_have_none() -> None:
    lines: list[Line] = []
    log = AccessLog(99, write=lambda name, **said: lines.append(said))

    async def scene() -> None:
        async with running_gateway(MemoryDirectory.of(entry("tiny")), sinks=[log]) as gateway:
            await gateway.chat("nobody")
            await gateway.http.get("/api/tags")
            await gateway.http.get("/somewhere")
            await gateway.http.get("/healthz")

    run(scene())
    assert [(line["method"], line["api"], line["code"], line["model"]) for line in lines] == [
        ("POST", "/api/chat", 404, ""),
        ("GET", "/api/tags", 200, ""),
        ("GET", "other", 404, ""),
    ]


def test_a_line_says_what_was_asked_of_whom_and_how_it_went() -> None:
    async def scene() -> None:
        [line] = await lines_of(stream([b'{"a":1}\n', NATIVE]))
        assert {name: line[name] for name in ("event", "model", "api", "code", "waited", "wake", "bytes")} == {
            "event": "request",
            "model": "default/tiny",
            "api": "/api/chat",
            "code": 200,
            "waited": 0.0,
            "wake": False,
            "bytes": 8 + len(NATIVE),
        }
        ttft, seconds = line["ttft"], line["seconds"]
        assert isinstance(ttft, float)
        assert isinstance(seconds, float)
        assert 0 <= ttft <= seconds

    run(scene())


def test_tokens_are_read_from_the_end_of_either_wire_format() -> None:
    async def scene() -> None:
        for answer, tokens in (
            (stream([b"{}\n", NATIVE]), (12, 34)),
            (stream([OPENAI, b"data: [DONE]\n\n"], kind="text/event-stream"), (7, 8)),
            (reply(body=b'{"type":"message","usage":{"input_tokens":3,"output_tokens":4}}'), (3, 4)),
            (reply(body=b'{"embedding":[1]}'), (None, None)),
        ):
            [line] = await lines_of(answer)
            assert (line.get("prompt_tokens"), line.get("tokens")) == tokens

    run(scene())


def test_numbers_that_a_model_writes_are_not_taken_for_tokens() -> None:
    async def scene() -> None:
        body = json.dumps({"response": '{"eval_count":99,"completion_tokens":99}'}).encode()
        [line] = await lines_of(reply(body=body))
        assert "tokens" not in line

    run(scene())


def test_no_word_of_the_prompt_or_the_answer_is_in_a_line() -> None:
    async def scene() -> None:
        lines = await lines_of(reply(body=b'{"response":"answered secret"}'), prompt="asked secret")
        assert "secret" not in json.dumps(lines)

    run(scene())


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "request_",
    [
        raw_request(f"/api/chat?prompt={SECRET}"),
        raw_request("/api/chat", b'{"model":"tiny"}', f"x-prompt: {SECRET}", f"user-agent: {SECRET}"),
        raw_request("/api/chat", b'{"model":"tiny"}', f"traceparent: {SECRET}", f"tracestate: {SECRET}"),
        raw_request("/api/chat", b'{"model":"tiny"}', f"traceparent: 00-{SECRET * 6}-{SECRET}-01"),
        raw_request("/api/chat", b'{"model":"%b"}' % SECRET.encode()),
        raw_request("/api/chat", b'{"model":"../%b"}' % SECRET.encode()),
        raw_request("/api/chat", b'{"model":"tiny","messages":%b' % SECRET.encode()),
        raw_request("/api/chat", b'{"model":{"%b":1}}' % SECRET.encode()),
        raw_request("/api/chat", b'{"model":"tiny"}', f"authorization: Bearer {SECRET}"),
        raw_request("/api/chat", b'{"model":"tiny"}', f"content-encoding: {SECRET}"),
        raw_request("/api/chat", b'{"model":"tiny"}', f"transfer-encoding: {SECRET}"),
        raw_request(f"/{SECRET}"),
        raw_request(f"/v1/models/{SECRET}", b"", method="GET"),
        raw_request(f"/api/blobs/sha256:{SECRET}", b"x"),
        f"{SECRET} /api/chat HTTP/1.1\r\nhost: x\r\n\r\n".encode(),
        f"POST /api/chat HTTP/1.1\r\nhost: x\r\n{SECRET}\r\n\r\n".encode(),
    ],
)
def test_nothing_that_a_client_writes_comes_into_any_log(request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        answer = reply(500, b'{"error":"%b is bad"}' % SECRET.encode())
        async with fake_upstream(answer) as upstream:
            directory = MemoryDirectory.of(entry("tiny", upstream.port))
            async with running_gateway(directory, sinks=[AccessLog(99)]) as gateway:
                reader, writer = await gateway.connect()
                writer.write(request_)
                assert (await reader.readline()).startswith(b"HTTP/1.1 ")
                writer.close()

    with caplog.at_level(logging.DEBUG):
        run(scene())
    written = "".join(JsonLines().format(record) for record in caplog.records)
    assert SECRET not in written


def test_a_fault_of_our_own_is_logged_with_its_place_and_not_with_its_text(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: object) -> bytes:
        raise ValueError(SECRET)

    async def scene() -> None:
        monkeypatch.setattr("corral_server.gateway.metadata.tags", fail)
        async with running_gateway(MemoryDirectory.of()) as gateway:
            await gateway.http.get("/api/tags")

    run(scene())
    written = "".join(JsonLines().format(record) for record in caplog.records)
    assert "ValueError" in written
    assert "in fail" in written
    assert SECRET not in written


def test_a_fault_on_the_short_way_is_answered_and_logged_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(MemoryDirectory):
        def find(self, name: str) -> Entry | None:
            raise ValueError(SECRET)

    async def scene() -> None:
        async with running_gateway(Faulty.of(entry("tiny"))) as gateway:
            answer = await gateway.chat()
            assert answer.status_code == 500
            assert "error" in answer.json()

    run(scene())
    written = "".join(JsonLines().format(record) for record in caplog.records)
    assert "ValueError" in written
    assert SECRET not in written


def test_the_trace_of_a_request_is_named_and_nothing_that_only_looks_like_one() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    lines: list[Line] = []
    log = AccessLog(99, write=lambda name, **said: lines.append(said))

    async def scene() -> None:
        async with running_gateway(MemoryDirectory.of(), sinks=[log]) as gateway:
            for value in (f"00-{trace}-00f067aa0ba902b7-01", f"00-{trace.upper()}-00f067aa0ba902b7-01", trace):
                await gateway.http.get("/api/tags", headers={"traceparent": value})

    run(scene())
    assert [line.get("trace") for line in lines] == [trace, None, None]


def test_the_holder_of_a_key_is_named_and_the_key_is_not(tmp_path: Path) -> None:
    lines: list[Line] = []
    log = AccessLog(99, write=lambda name, **said: lines.append(said))

    async def scene() -> None:
        async with (
            fake_upstream(reply()) as upstream,
            running_gateway(
                MemoryDirectory.of(entry("tiny", upstream.port)), sinks=[log], keys_file=key_file(tmp_path)
            ) as gateway,
        ):
            for key in (ALICE, BOB, SECRET):  # the first makes a connection, the second goes the short way
                await gateway.http.post("/api/chat", json={"model": "tiny"}, headers=bearer(key))

    run(scene())
    assert [(line["code"], line.get("client")) for line in lines] == [(200, "alice"), (200, "bob"), (401, None)]
    assert not {ALICE, BOB, SECRET} & set(json.dumps(lines).split('"'))


def test_a_flood_is_a_bounded_number_of_lines_and_says_what_it_left_out() -> None:
    now = [1.0]
    lines: list[Line] = []
    log = AccessLog(2, write=lambda name, **said: lines.append({"event": name, **said}), clock=lambda: now[0])

    async def scene() -> None:
        async with (
            fake_upstream(reply()) as upstream,
            running_gateway(MemoryDirectory.of(entry("tiny", upstream.port)), sinks=[log]) as gateway,
        ):
            for _ in range(7):
                await gateway.chat()
            assert len(lines) == 2
            now[0] += 1
            await gateway.chat()
            assert lines[-1]["skipped"] == 5
            assert "skipped" not in lines[0]

    run(scene())


def test_a_request_that_woke_its_model_says_so() -> None:
    lines: list[Line] = []
    log = AccessLog(9, write=lambda name, **said: lines.append({"event": name, **said}))

    async def scene() -> None:
        async with fake_upstream(reply()) as upstream:
            directory = MemoryDirectory.of(entry("tiny"))
            async with running_gateway(directory, sinks=[log]) as gateway:
                waiting = asyncio.create_task(gateway.chat())
                await gateway.until_waiting(1)
                directory.change(endpoints=(endpoint(upstream.port),))
                await waiting
        waited = lines[0]["waited"]
        assert isinstance(waited, float)
        assert waited > 0
        assert lines[0]["wake"] is True

    run(scene())
