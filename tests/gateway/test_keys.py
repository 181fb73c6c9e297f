"""API keys: authentication, allowed models, rate limits, error responses, key file."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
import yaml

from corral_core.base.errors import InvalidSetting
from corral_core.base.names import canonical_name
from corral_core.contracts.api_keys import generate_key, key_digest
from corral_server.gateway.auth.generate_key import main
from corral_server.gateway.auth.key_file import (
    ApiKey,
    InvalidKeyFile,
    parse_keys,
)
from corral_server.gateway.auth.key_store import KeyStore
from corral_server.gateway.auth.rate_limits import (
    KeyRateLimiter,
    NoPeerKeyUsage,
    RateLimitExceeded,
)
from corral_server.gateway.config import GatewayConfig
from corral_server.system import file_changes
from tests.support.fake_upstream import Call, fake_upstream, reply
from tests.support.gateway import MemoryDirectory, RunningGateway, entry, running_gateway
from tests.support.waiting import auntil

ALICE, BOB = "corral_alice", "corral_bob"


def key_file(folder: Path, **fields: Mapping[str, object]) -> str:
    """Write a key file with the keys of alice and bob; ``fields`` are further fields of their entries."""
    path = folder / "keys.yaml"
    aside = folder / "keys.new"
    entries = [
        {"name": name, "sha256": key_digest(f"corral_{name}".encode()).hex(), **fields.get(name, {})}
        for name in ("alice", "bob")
    ]
    aside.write_text(yaml.safe_dump({"keys": entries}))
    aside.replace(path)  # as a Secret's volume is renewed: at once
    return str(path)


def rewrite(path: Path, text: str | None) -> None:
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def ask(
    gateway: RunningGateway, key: str | None, *, path: str = "/api/chat", model: str = "tiny"
) -> httpx.Response:
    headers = bearer(key) if key else {}
    return await gateway.http.post(path, json={"model": model}, headers=headers)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_request_with_a_key_is_served_and_the_key_is_not_forwarded(tmp_path: Path, times: int) -> None:
    async with (
        fake_upstream() as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=key_file(tmp_path)) as gateway,
    ):
        for _ in range(times):
            assert (await ask(gateway, ALICE)).json() == {"done": True}
    assert [call.headers.get("authorization") for call in up.calls] == [None] * times


@pytest.mark.parametrize(
    "given", [{}, {"authorization": "Bearer no"}, {"authorization": "Basic eA=="}, {"x-api-key": ALICE}]
)
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
async def test_a_missing_or_unknown_key_gets_401_and_is_not_queued(
    tmp_path: Path, path: str, given: dict[str, str]
) -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory, keys_file=key_file(tmp_path)) as gateway:
        answer = await gateway.http.post(path, json={"model": "tiny"}, headers=given)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        text = "an API key is required" if given.get("authorization") != "Bearer no" else "invalid API key"
        error = answer.json()["error"]
        if path.startswith("/v1/"):
            assert error["type"] == "authentication_error"
            error = error["message"]
        assert error.startswith(text)
        assert gateway.pending == 0
    assert not any(waiting for _, waiting, _ in directory.demands)


async def test_anthropic_paths_accept_the_x_api_key_header(tmp_path: Path) -> None:
    async with (
        fake_upstream() as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=key_file(tmp_path)) as gateway,
    ):
        answer = await gateway.http.post("/v1/messages", json={"model": "tiny"}, headers={"x-api-key": BOB})
        assert answer.status_code == 200
        assert "x-api-key" not in up.calls[0].headers
        answer = await gateway.http.post("/v1/messages", json={"model": "tiny"}, headers={"x-api-key": "no"})
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz"])
async def test_probes_need_no_key(tmp_path: Path, path: str) -> None:
    async with running_gateway(MemoryDirectory(), keys_file=key_file(tmp_path)) as gateway:
        assert (await gateway.http.get(path)).status_code == 200
        assert (await gateway.http.get("/api/tags")).status_code == 401


@pytest.mark.parametrize(
    ("path", "kind"), [("/api/chat", None), ("/v1/messages", "permission_error"), ("/api/show", None)]
)
@pytest.mark.parametrize("model", ["other", "unknown", "OTHER:latest"])
async def test_a_model_that_the_key_does_not_allow_gets_403_whether_it_exists_or_not(
    tmp_path: Path, path: str, kind: str | None, model: str
) -> None:
    directory = MemoryDirectory.of(entry("tiny"), entry("other"))
    keys = key_file(tmp_path, alice={"models": ["ti*"]})
    async with running_gateway(directory, keys_file=keys) as gateway:
        answer = await ask(gateway, ALICE, path=path, model=model)
        assert answer.status_code == 403
        error = answer.json()["error"]
        assert kind is None or error["type"] == kind
        assert f"does not allow model '{model}'" in str(error)


async def test_lists_contain_only_allowed_models(tmp_path: Path) -> None:
    directory = MemoryDirectory.of(entry("tiny"), entry("other"), entry("big", names=("big:latest", "tiny-too:1b")))
    keys = key_file(tmp_path, alice={"models": ["tiny*"]}, bob={"models": ["other"]})
    async with running_gateway(directory, keys_file=keys) as gateway:
        for key, names in ((ALICE, ["tiny-too:1b", "tiny:latest"]), (BOB, ["other:latest"])):
            tags = (await gateway.http.get("/api/tags", headers=bearer(key))).json()["models"]
            assert sorted(tag["name"] for tag in tags) == names
            models = (await gateway.http.get("/v1/models", headers=bearer(key))).json()["data"]
            assert sorted(model["id"] for model in models) == names
        assert (await gateway.http.get("/v1/models/other", headers=bearer(ALICE))).status_code == 404


@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages", "/v1/completions"])
async def test_requests_beyond_requests_per_minute_get_429(tmp_path: Path, path: str) -> None:
    keys = key_file(tmp_path, alice={"requestsPerMinute": 3})
    async with (
        fake_upstream() as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=keys) as gateway,
    ):
        assert (await ask(gateway, ALICE, path=path, model="unknown")).status_code == 404
        answers = [await ask(gateway, ALICE, path=path) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert 55 <= int(answers[-1].headers["retry-after"]) <= 60
        assert "rate_limit_error" in answers[-1].text or path == "/api/chat"
        assert (await ask(gateway, BOB, path=path)).status_code == 200
    assert len(up.calls) == 4


async def test_requests_beyond_concurrent_get_429_until_one_ends(tmp_path: Path) -> None:
    go_on = asyncio.Event()

    async def behave(call: Call) -> None:
        await go_on.wait()
        await reply()(call)

    keys = key_file(tmp_path, alice={"concurrent": 2})
    async with (
        fake_upstream(behave) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=keys) as gateway,
    ):
        first = [asyncio.create_task(ask(gateway, ALICE)) for _ in range(2)]
        await auntil(lambda: len(up.calls) == 2)
        refused = await ask(gateway, ALICE)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        first[0].cancel()  # a client that leaves
        await auntil(lambda: gateway.gateway.dispatcher.queue.slots_in_use("default/tiny") == 1)
        again = asyncio.create_task(ask(gateway, ALICE))
        await auntil(lambda: len(up.calls) == 3)
        go_on.set()
        assert (await first[1]).status_code == (await again).status_code == 200


async def test_the_key_file_is_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_changes, "CHECK_INTERVAL", 0.0)

    path = Path(key_file(tmp_path, alice={"models": ["other"]}))
    async with (
        fake_upstream() as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), keys_file=str(path)) as gateway,
    ):
        assert (await ask(gateway, ALICE)).status_code == 403
        key_file(tmp_path)
        assert (await ask(gateway, ALICE)).status_code == 200
        rewrite(path, "keys: [{name: broken}]")
        assert (await ask(gateway, ALICE)).status_code == 200, "what cannot be used changes nothing"
        rewrite(path, None)
        assert (await ask(gateway, ALICE)).status_code == 200
        rewrite(path, "keys: []")
        assert (await ask(gateway, ALICE)).status_code == 401


GOOD = {"name": "a", "sha256": "ab" * 32}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (None, "a list 'keys'"),
        (["x"], "key 1 must be an object"),
        ([{**GOOD, "key": "corral_secret"}], "an unknown field"),
        ([{**GOOD, "name": "a b"}], "name must be"),
        ([{**GOOD, "sha256": "corral_secret"}], "key a: sha256 must be"),
        ([{**GOOD, "models": "all"}], "key a: models must be a list"),
        ([{**GOOD, "namespaces": []}], "key a: namespaces must be a list"),
        ([{**GOOD, "namespaces": ["Team_A"]}], "key a: namespaces must be a list"),
        ([{**GOOD, "requestsPerMinute": 0}], "requestsPerMinute must be"),
        ([{**GOOD, "tokensPerDay": -1}], "tokensPerDay must be"),
        ([{**GOOD, "tokensPerMinute": "many"}], "tokensPerMinute must be"),
        ([{**GOOD, "outputTokensPerRequest": 0}], "outputTokensPerRequest must be"),
        ([{**GOOD, "secondsPerRequest": 0.5}], "secondsPerRequest must be"),
        ([{**GOOD, "createModels": "no"}], "createModels must be true or false"),
        ([{**GOOD, "expires": "tomorrow"}], "key a: expires must be a time with its zone"),
        ([{**GOOD, "expires": "2027-01-31T00:00:00"}], "key a: expires must be a time with its zone"),
        ([{**GOOD, "expires": 1800000000}], "key a: expires must be a time with its zone"),
        ([{**GOOD, "concurrent": True}], "concurrent must be"),
        ([GOOD, {**GOOD, "name": "b"}], "the same sha256"),
        ([GOOD, {**GOOD, "sha256": "cd" * 32}], "the same name"),
    ],
)
def test_an_invalid_key_file_is_rejected(entries: object, says: str) -> None:
    with pytest.raises(InvalidKeyFile, match=says) as caught:
        parse_keys(yaml.safe_dump({"keys": entries}))
    assert "corral_secret" not in str(caught.value)


def test_a_missing_or_invalid_key_file_is_a_setting_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="CORRAL_API_KEYS_FILE='/nowhere' cannot be used"):
        KeyStore("/nowhere")
    (tmp_path / "keys").write_text("{")
    with pytest.raises(InvalidSetting, match="not YAML"):
        KeyStore(str(tmp_path / "keys"))


@pytest.mark.parametrize(
    ("pattern", "model", "allowed"),
    [
        ("*", "anything:1b", True),
        ("tiny", "tiny", True),
        ("tiny", "Tiny:latest", True),
        ("tiny", "tiny:1b", False),
        ("tiny:*", "tiny:1b", True),
        ("tiny", "tiny2", False),
        ("team/*", "team/x:1", True),
        ("x", "team/x", False),
    ],
)
def test_model_patterns(pattern: str, model: str, allowed: bool) -> None:
    assert ApiKey("a", b"", (pattern,)).allows(canonical_name(model)) is allowed


def test_the_rate_limit_is_a_sliding_window() -> None:
    now = 0.0
    rates, key = KeyRateLimiter(lambda: now, NoPeerKeyUsage()), ApiKey("a", b"", requests_per_minute=2)
    rates.finish(rates.start(key), key)
    now = 50.0
    rates.finish(rates.start(key), key)
    now = 59.0
    with pytest.raises(RateLimitExceeded) as caught:
        rates.start(key)
    assert caught.value.retry_after == 1
    now = 60.0
    rates.finish(rates.start(key), key)
    with pytest.raises(RateLimitExceeded) as caught:
        rates.start(key)
    assert caught.value.retry_after == 50


def test_a_generated_key_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["team-a"]) == 0
    said = capsys.readouterr()
    (made,) = parse_keys("keys:\n" + said.out)
    secret = said.err.split()[-1]
    assert made.name == "team-a"
    assert made.digest == key_digest(secret.encode())
    assert main(["no good"]) == 1
    assert generate_key() != generate_key()


def test_api_keys_are_disabled_by_default() -> None:
    assert GatewayConfig.from_environment({}).keys_file == ""
    assert GatewayConfig.from_environment({"CORRAL_API_KEYS_FILE": "/keys"}).keys_file == "/keys"
