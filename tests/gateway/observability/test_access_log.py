"""Access log: fields, no text of clients, rate limit."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from corral_core.base.json_log import JsonLineFormatter
from corral_core.model.name_index import EVERYWHERE, Scope
from corral_server.gateway.directory.directory import FoundModel
from corral_server.gateway.observability.access_log import AccessLog
from tests.gateway.test_keys import ALICE, BOB, bearer, key_file
from tests.support.fake_upstream import Behaviour, fake_upstream, reply, stream
from tests.support.gateway import MemoryDirectory, endpoint, entry, raw_request, running_gateway

Line = dict[str, object]

NATIVE = b'{"done":true,"prompt_eval_count":12,"prompt_eval_duration":5,"eval_count":34}\n'
OPENAI = b'data: {"usage":{"prompt_tokens":7,"completion_tokens":8,"total_tokens":15}}\n\n'


async def lines_of(*answers: Behaviour, rate: int = 100, requests: int = 1, **fields: object) -> list[Line]:
    lines: list[Line] = []
    log = AccessLog(rate, write=lambda name, **said: lines.append({"event": name, **said}), clock=lambda: 1.0)
    async with fake_upstream(*answers) as upstream:
        directory = MemoryDirectory.of(entry("tiny", upstream.port))
        async with running_gateway(directory, observers=[log]) as gateway:
            for _ in range(requests):
                await gateway.chat(**fields)  # type: ignore[arg-type]  # fields of the body
    return lines


async def test_requests_without_a_model_are_logged_and_probes_are_not() -> None:
    lines: list[Line] = []
    log = AccessLog(99, write=lambda name, **said: lines.append(said))

    async with running_gateway(MemoryDirectory.of(entry("tiny")), observers=[log]) as gateway:
        await gateway.chat("unknown")
        await gateway.http.get("/api/tags")
        await gateway.http.get("/somewhere")
        await gateway.http.get("/healthz")
    assert [(line["method"], line["api"], line["code"], line["model"]) for line in lines] == [
        ("POST", "/api/chat", 404, ""),
        ("GET", "/api/tags", 200, ""),
        ("GET", "other", 404, ""),
    ]


async def test_a_line_contains_model_api_code_and_times() -> None:
    [line] = await lines_of(stream([b'{"a":1}\n', NATIVE]))
    assert {name: line[name] for name in ("event", "model", "api", "code", "queue_seconds", "wake", "bytes")} == {
        "event": "request",
        "model": "default/tiny",
        "api": "/api/chat",
        "code": 200,
        "queue_seconds": 0.0,
        "wake": False,
        "bytes": 8 + len(NATIVE),
    }
    ttft, seconds = line["ttft"], line["seconds"]
    assert isinstance(ttft, float)
    assert isinstance(seconds, float)
    assert 0 <= ttft <= seconds


async def test_tokens_are_read_from_the_end_of_either_wire_format() -> None:
    for answer, tokens in (
        (stream([b"{}\n", NATIVE]), (12, 34)),
        (stream([OPENAI, b"data: [DONE]\n\n"], content_type="text/event-stream"), (7, 8)),
        (reply(body=b'{"type":"message","usage":{"input_tokens":3,"output_tokens":4}}'), (3, 4)),
        (reply(body=b'{"embedding":[1]}'), (None, None)),
    ):
        [line] = await lines_of(answer)
        assert (line.get("prompt_tokens"), line.get("tokens")) == tokens


async def test_numbers_in_generated_text_are_not_read_as_token_counts() -> None:
    body = json.dumps({"response": '{"eval_count":99,"completion_tokens":99}'}).encode()
    [line] = await lines_of(reply(body=body))
    assert "tokens" not in line


async def test_a_line_contains_no_text_of_prompt_or_response() -> None:
    lines = await lines_of(reply(body=b'{"response":"answered secret"}'), prompt="asked secret")
    assert "secret" not in json.dumps(lines)


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
async def test_no_log_contains_text_of_a_client(request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = reply(500, b'{"error":"%b is bad"}' % SECRET.encode())
        async with fake_upstream(answer) as upstream:
            directory = MemoryDirectory.of(entry("tiny", upstream.port))
            async with running_gateway(directory, observers=[AccessLog(99)]) as gateway:
                reader, writer = await gateway.connect()
                writer.write(request_)
                assert (await reader.readline()).startswith(b"HTTP/1.1 ")
                writer.close()
    written = "".join(JsonLineFormatter().format(record) for record in caplog.records)
    assert SECRET not in written


async def test_an_internal_error_is_logged_with_its_location_and_without_its_message(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(directory: object) -> bytes:
        raise ValueError(SECRET)

    monkeypatch.setattr("corral_server.gateway.api.metadata.tags", fail)
    async with running_gateway(MemoryDirectory.of()) as gateway:
        await gateway.http.get("/api/tags")
    written = "".join(JsonLineFormatter().format(record) for record in caplog.records)
    assert "ValueError" in written
    assert "in fail" in written
    assert SECRET not in written


async def test_an_internal_error_of_the_directory_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Faulty(MemoryDirectory):
        def find(self, name: str, scope: Scope = EVERYWHERE) -> FoundModel | None:
            raise ValueError(SECRET)

    async with running_gateway(Faulty.of(entry("tiny"))) as gateway:
        answer = await gateway.chat()
        assert answer.status_code == 500
        assert "error" in answer.json()
    written = "".join(JsonLineFormatter().format(record) for record in caplog.records)
    assert "ValueError" in written
    assert SECRET not in written


async def test_a_line_contains_the_trace_id_of_a_valid_traceparent_only() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    lines: list[Line] = []
    log = AccessLog(99, write=lambda name, **said: lines.append(said))

    async with running_gateway(MemoryDirectory.of(), observers=[log]) as gateway:
        for value in (f"00-{trace}-00f067aa0ba902b7-01", f"00-{trace.upper()}-00f067aa0ba902b7-01", trace):
            await gateway.http.get("/api/tags", headers={"traceparent": value})
    assert [line.get("trace_id") for line in lines] == [trace, None, None]


async def test_a_line_contains_the_name_of_the_api_key_and_not_the_key(tmp_path: Path) -> None:
    lines: list[Line] = []
    log = AccessLog(99, write=lambda name, **said: lines.append(said))

    async with (
        fake_upstream(reply()) as upstream,
        running_gateway(
            MemoryDirectory.of(entry("tiny", upstream.port)), observers=[log], keys_file=key_file(tmp_path)
        ) as gateway,
    ):
        for key in (ALICE, BOB, SECRET):  # the first connects to the runner, the others reuse the connection
            await gateway.http.post("/api/chat", json={"model": "tiny"}, headers=bearer(key))
    assert [(line["code"], line.get("api_key")) for line in lines] == [(200, "alice"), (200, "bob"), (401, None)]
    assert not {ALICE, BOB, SECRET} & set(json.dumps(lines).split('"'))


async def test_the_number_of_lines_is_limited_and_skipped_lines_are_counted() -> None:
    now = [1.0]
    lines: list[Line] = []
    log = AccessLog(2, write=lambda name, **said: lines.append({"event": name, **said}), clock=lambda: now[0])

    async with (
        fake_upstream(reply()) as upstream,
        running_gateway(MemoryDirectory.of(entry("tiny", upstream.port)), observers=[log]) as gateway,
    ):
        for _ in range(7):
            await gateway.chat()
        assert len(lines) == 2
        now[0] += 1
        await gateway.chat()
        assert lines[-1]["skipped"] == 5
        assert "skipped" not in lines[0]


async def test_a_line_of_a_cold_start_says_wake() -> None:
    lines: list[Line] = []
    log = AccessLog(9, write=lambda name, **said: lines.append({"event": name, **said}))

    async with fake_upstream(reply()) as upstream:
        directory = MemoryDirectory.of(entry("tiny"))
        async with running_gateway(directory, observers=[log]) as gateway:
            waiting = asyncio.create_task(gateway.chat())
            await gateway.until_pending(1)
            directory.change(endpoints=(endpoint(upstream.port),))
            await waiting
    waited = lines[0]["queue_seconds"]
    assert isinstance(waited, float)
    assert waited > 0
    assert lines[0]["wake"] is True
