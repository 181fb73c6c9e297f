"""Limits of tokens, expiry, usage metrics and audit log of API keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from corral_core.base.exposition import expose
from corral_server.gateway.auth.key_file import ApiKey, parse_keys
from corral_server.gateway.auth.rate_limits import KeyRateLimiter, NoPeerKeyUsage, RateLimitExceeded
from corral_server.gateway.auth.token_window import TokenWindow
from corral_server.gateway.observability.audit_log import AuditLog
from tests.gateway.test_keys import ALICE, BOB, ask, bearer, key_file
from tests.gateway.test_several_gateways import two_gateways
from tests.gateway.test_shared_keys import Others
from tests.support.fake_engine import FakeEngine
from tests.support.fake_upstream import Behaviour, Call, fake_upstream, reply, stream
from tests.support.gateway import MemoryDirectory, RunningGateway, entry, running_gateway
from tests.support.runner_server import serving
from tests.support.waiting import auntil

USAGE = b'{"done":true,"prompt_eval_count":60,"eval_count":40}\n'


def samples(gateway: RunningGateway, name: str) -> dict[str, float]:
    """Return the samples of a metric, by the text of their labels."""
    text = expose([gateway.gateway.families], "")[0].decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(f"{name}{{")]
    return {labels.removeprefix(name): float(value) for labels, _, value in lines}


def tokens(gateway: RunningGateway, key: str = "alice") -> tuple[int, int]:
    found = samples(gateway, "corral_gateway_api_key_tokens_total")
    prompt, generated = (found[f'{{api_key="{key}",kind="{kind}"}}'] for kind in ("prompt", "generated"))
    return int(prompt), int(generated)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize(("field", "unit", "most"), [("tokensPerMinute", "minute", 60), ("tokensPerDay", "day", 86400)])
async def test_requests_beyond_a_limit_of_tokens_get_429(
    tmp_path: Path, path: str, field: str, unit: str, most: int
) -> None:
    keys = key_file(tmp_path, alice={field: 150})
    async with (
        fake_upstream(reply(body=USAGE)) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=keys) as gateway,
    ):
        answers = [await ask(gateway, ALICE, path=path) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert f"this API key allows 150 tokens per {unit}" in answers[-1].text
        assert "rate_limit_error" in answers[-1].text or path == "/api/chat"
        assert most - most // 30 <= int(answers[-1].headers["retry-after"]) <= most + most // 30
        assert (await ask(gateway, BOB, path=path)).status_code == 200
        assert tokens(gateway) == (120, 80)


def openai_stream(events: int) -> Behaviour:
    return stream([b'data: {"choices":[]}\n\n'] * events + [b"data: [DONE]\n\n"], content_type="text/event-stream")


async def test_a_stream_that_reports_no_usage_counts_its_events_and_the_runners_prompt_tokens(tmp_path: Path) -> None:
    async def behave(call: Call) -> None:
        head = {"content-type": "text/event-stream", "transfer-encoding": "chunked", "corral-prompt-tokens": "17"}
        await call.head(200, head)
        for _ in range(5):
            await call.chunk(b'data: {"choices":[]}\n\n')
        await call.write(b"0\r\n\r\n")

    async with (
        fake_upstream(behave, openai_stream(3)) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=key_file(tmp_path)) as gateway,
    ):
        answer = await ask(gateway, ALICE, path="/v1/chat/completions")
        estimate = len(b'{"model":"tiny"}') // 4
        assert tokens(gateway) == (estimate, 3), "without a report, four bytes of the request count as one token"
        answer = await ask(gateway, ALICE, path="/v1/chat/completions")
        assert tokens(gateway) == (estimate + 17, 8)
        assert "corral-prompt-tokens" not in answer.headers


async def test_a_client_that_disconnects_early_is_counted(tmp_path: Path) -> None:
    async def behave(call: Call) -> None:
        await call.head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"})
        for _ in range(7):
            await call.chunk(b'{"message":{"content":"a"},"done":false}\n')
        await call.wait_closed()

    keys = key_file(tmp_path, alice={"tokensPerMinute": 7})
    async with (
        fake_upstream(behave) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=keys) as gateway,
    ):
        body = {"model": "tiny", "pad": "x" * 400}
        async with gateway.http.stream("POST", "/api/chat", json=body, headers=bearer(ALICE)) as answer:
            lines = answer.aiter_lines()
            for _ in range(7):
                await anext(lines)
        await auntil(lambda: tokens(gateway)[1] == 7)
        assert tokens(gateway)[0] >= 100
        assert (await ask(gateway, ALICE)).status_code == 429


@pytest.mark.parametrize(
    ("path", "body", "counted"),
    [
        ("/v1/messages/count_tokens", b'{"input_tokens":600000000000000000000000000000}', (0, 0)),
        ("/tokenize", b'{"tokens":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}', (0, 0)),
        ("/infill", b'{"content":"......................","tokens_predicted":40,"tokens_evaluated":60}', (60, 40)),
        ("/v1/rerank", b'{"results":[],"usage":{"prompt_tokens":60,"total_tokens":60}}', (60, 0)),
    ],
)
async def test_tokens_count_that_were_evaluated(
    tmp_path: Path, path: str, body: bytes, counted: tuple[int, int]
) -> None:
    async with (
        fake_upstream(reply(body=body)) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=key_file(tmp_path)) as gateway,
    ):
        assert (await ask(gateway, ALICE, path=path)).status_code == 200
        assert tokens(gateway) == counted


async def test_a_failed_request_consumes_no_tokens(tmp_path: Path) -> None:
    async with (
        fake_upstream(reply(400, b'{"error":"no"}')) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=key_file(tmp_path)) as gateway,
    ):
        assert (await ask(gateway, ALICE)).status_code == 400
        assert (await ask(gateway, ALICE, model="unknown")).status_code == 404
        assert tokens(gateway) == (0, 0)


async def test_a_runner_reports_the_tokens_of_the_prompt_at_the_beginning_of_a_stream(tmp_path: Path) -> None:
    engine = FakeEngine()
    with serving(engine) as runner:
        async with running_gateway(
            MemoryDirectory.of(entry("tiny", runner.port)), keys_file=key_file(tmp_path)
        ) as gateway:
            body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            answer = await gateway.http.post("/v1/chat/completions", json=body, headers=bearer(ALICE))
            assert answer.status_code == 200
            assert tokens(gateway)[0] == len(engine.tasks[0].prompt)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
async def test_an_expired_key_gets_401_with_the_time(tmp_path: Path, path: str) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    keys = key_file(tmp_path, alice={"expires": "2026-01-31T00:00:00Z"}, bob={"expires": soon.isoformat()})
    async with (
        fake_upstream() as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=keys) as gateway,
    ):
        answer = await ask(gateway, ALICE, path=path)
        assert answer.status_code == 401
        assert "this API key expired at 2026-01-31T00:00:00Z" in answer.text
        assert (await ask(gateway, BOB, path=path)).status_code == 200
        assert samples(gateway, "corral_gateway_unauthorized_requests_total")['{reason="expired"}'] == 1
        expiries = samples(gateway, "corral_gateway_api_key_expiry_timestamp_seconds")
        assert expiries['{api_key="bob"}'] == pytest.approx(soon.timestamp(), abs=1)


@pytest.mark.parametrize("text", ["2027-01-31T02:00:00+02:00", '"2027-01-31T00:00:00Z"', "2027-01-31T00:00:00Z"])
def test_an_expiry_is_a_time_with_a_zone(text: str) -> None:
    (key,) = parse_keys(f'keys: [{{name: a, sha256: "{"ab" * 32}", expires: {text}}}]')
    assert key.expires == datetime(2027, 1, 31, tzinfo=UTC).timestamp()


async def test_usage_counts_by_key_and_ends_with_the_key(tmp_path: Path) -> None:
    async with (
        fake_upstream(reply(body=USAGE)) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=key_file(tmp_path)) as gateway,
    ):
        await ask(gateway, ALICE)
        await ask(gateway, ALICE, model="unknown")
        await ask(gateway, "corral_unknown")
        await ask(gateway, None)
        requests = samples(gateway, "corral_gateway_api_key_requests_total")
        assert requests == {'{api_key="alice",code="200"}': 1, '{api_key="alice",code="404"}': 1}
        rejected = samples(gateway, "corral_gateway_unauthorized_requests_total")
        assert rejected == {'{reason="missing"}': 1, '{reason="invalid"}': 1, '{reason="expired"}': 0}
        store = gateway.gateway._authenticator._store if gateway.gateway._authenticator else None
        assert store is not None
        store._file = {digest: key for digest, key in store._file.items() if key.name == "bob"}
        store.on_change()
        assert samples(gateway, "corral_gateway_api_key_requests_total") == {}
        assert "alice" not in str(samples(gateway, "corral_gateway_api_key_tokens_total"))


async def test_the_audit_log_has_a_line_for_each_request_of_a_key(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = []
    audit = AuditLog(write=lambda name, **said: lines.append({"event": name, **said}), clock=lambda: 1.0)
    keys = key_file(tmp_path, alice={"models": ["tiny", "tuned"]})
    model = entry("tiny", names=("tiny:latest", "tuned:latest"))
    async with (
        fake_upstream(reply(body=USAGE)) as up,
        running_gateway(
            MemoryDirectory.of(entry("tiny", up.port, names=model.names)), keys_file=keys, observers=[audit]
        ) as gateway,
    ):
        await ask(gateway, ALICE, model="Tuned")
        await ask(gateway, ALICE, model="secret-name-of-a-client")
        await gateway.http.get("/api/tags", headers=bearer(BOB))
        for _ in range(15):
            await ask(gateway, "corral_guess")
    fields = ("event", "api_key", "model", "model_name", "api", "code", "prompt_tokens", "tokens")
    assert [tuple(line[field] for field in fields) for line in lines[:3]] == [
        ("audit", "alice", "default/tiny", "tuned:latest", "/api/chat", 200, 60, 40),
        ("audit", "alice", "", "", "/api/chat", 403, 0, 0),
        ("audit", "bob", "", "", "/api/tags", 200, 0, 0),
    ]
    assert [line["code"] for line in lines[3:]] == [401] * 10, "lines without a key are limited"
    assert "secret" not in json.dumps(lines)
    assert "guess" not in json.dumps(lines)


async def test_tokens_per_minute_applies_to_all_gateways(tmp_path: Path) -> None:
    async with two_gateways(keys_file=key_file(tmp_path, alice={"tokensPerMinute": 5})) as gateways:
        gateways.ready(slots=4)
        gateways.runner.gate.set()
        one, two = gateways.both
        used, known = one.gateway._authenticator, two.gateway._authenticator
        assert used is not None
        assert known is not None
        await ask(one, ALICE)
        used._limiter.add_tokens("alice", 5)
        await auntil(lambda: known._limiter._peers.key_tokens("alice")[0] >= 5)
        answer = await ask(two, ALICE)
        assert answer.status_code == 429
        assert "5 tokens per minute" in answer.text


def test_the_limit_of_tokens_is_a_sliding_window() -> None:
    now = 0.0
    rates = KeyRateLimiter(lambda: now, NoPeerKeyUsage())
    key = ApiKey("a", b"", tokens_per_minute=100)
    rates.finish(rates.start(key), key)
    rates.add_tokens("a", 60)
    now = 30.0
    rates.finish(rates.start(key), key)
    rates.add_tokens("a", 60)
    with pytest.raises(RateLimitExceeded) as caught:
        rates.start(key)
    assert caught.value.retry_after == 31
    now = 61.0
    rates.finish(rates.start(key), key)
    rates.add_tokens("a", 500)
    with pytest.raises(RateLimitExceeded) as caught:
        rates.start(key)
    assert caught.value.retry_after == 61


def test_tokens_at_the_peers_count_and_their_times_are_estimated() -> None:
    rates, key = KeyRateLimiter(lambda: 0.0, Others(tokens=(50, 99))), ApiKey("a", b"", tokens_per_day=100)
    rates.finish(rates.start(key), key)
    rates.add_tokens("a", 1)
    with pytest.raises(RateLimitExceeded, match="100 tokens per day") as caught:
        rates.start(key)
    assert caught.value.retry_after in range(1, 86400 + 1441)


def test_a_window_holds_at_most_its_parts() -> None:
    window = TokenWindow(60.0)
    for second in range(1000):
        window.add(1, float(second))
        window.add(1, second + 0.5)
    assert window.total == 120
    assert len(window._parts) == 60
    window.expire(2000.0)
    assert window.total == 0
    assert window.seconds_until_fewer(1, 2000.0) is None
