"""Limits of requests by Model, installation and API key, which the runner gets in headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.model.model import ModelSpec
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory.directory import ModelEntry
from corral_server.wire.request_limits import NO_REQUEST_LIMITS, RequestLimits
from tests.gateway.test_keys import ALICE, BOB, bearer, key_file
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, entry, running_gateway

TOKENS, DURATION = "corral-max-output-tokens", "corral-max-duration-ms"


def limited(*ports: int, **limits: object) -> ModelEntry:
    """Return a Model with ``spec.requestLimits``."""
    made = entry("tiny", *ports)
    spec = ModelSpec.model_validate({"source": "file:///weights/tiny.gguf", "requestLimits": limits})
    return replace(made, model=replace(made.model, spec=spec))


def sent(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    return headers.get(TOKENS), headers.get(DURATION)


@pytest.mark.parametrize(
    ("model", "installation", "expected"),
    [
        ({}, NO_REQUEST_LIMITS, (None, None)),
        ({"maxOutputTokens": 5, "maxDuration": "1m30s"}, NO_REQUEST_LIMITS, ("5", "90000")),
        ({}, RequestLimits(7, 2.5), ("7", "2500")),
        ({"maxOutputTokens": 100}, RequestLimits(7, 2.5), ("100", "2500")),
        ({"maxDuration": 10}, RequestLimits(7, 2.5), ("7", "10000")),
    ],
)
async def test_a_model_has_its_own_limits_or_the_installations(
    model: dict[str, object], installation: RequestLimits, expected: tuple[str | None, str | None]
) -> None:
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(limited(up.port, **model))
        async with running_gateway(directory, request_limits=installation) as gateway:
            assert (await gateway.chat()).status_code == 200
    assert sent(up.calls[0].headers) == expected


async def test_a_client_cannot_set_the_limits() -> None:
    headers = {TOKENS: "1000000", DURATION: "1000000"}
    async with (
        fake_upstream() as up,
        running_gateway(MemoryDirectory.of(limited(up.port, maxOutputTokens=5))) as gateway,
    ):
        await gateway.http.post("/api/chat", json={"model": "tiny"}, headers=headers)
    assert sent(up.calls[0].headers) == ("5", None)


async def test_the_lower_of_the_models_and_the_keys_limits_counts(tmp_path: Path) -> None:
    keys = key_file(tmp_path, alice={"outputTokensPerRequest": 3, "secondsPerRequest": 60})
    async with fake_upstream() as up:
        directory = MemoryDirectory.of(limited(up.port, maxOutputTokens=5, maxDuration="30s"))
        async with running_gateway(directory, keys_file=keys) as gateway:
            for key in (ALICE, BOB):
                await gateway.http.post("/api/chat", json={"model": "tiny"}, headers=bearer(key))
    assert [sent(call.headers) for call in up.calls] == [("3", "30000"), ("5", "30000")]


def test_the_limits_of_the_installation_are_settings() -> None:
    assert GatewayConfig.from_environment({}).request_limits == NO_REQUEST_LIMITS
    settings = {"CORRAL_MAX_OUTPUT_TOKENS": "4096", "CORRAL_MAX_REQUEST_DURATION": "5m"}
    assert GatewayConfig.from_environment(settings).request_limits == RequestLimits(4096, 300.0)
