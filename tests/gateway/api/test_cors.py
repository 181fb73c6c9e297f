"""CORS and the Host check, as Ollama applies them."""

from __future__ import annotations

import socket

import httpx
import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.api.cors import AllowedOrigins, host_allowed, is_loopback
from tests.support.gateway import MemoryDirectory, running_gateway


async def ask(
    method: str, path: str = "/api/version", *, host: str = "0.0.0.0", origins: str = "", **headers: str
) -> httpx.Response:
    """Send one request to a gateway that believes to listen on ``host``; ``_`` in a header's name stands for ``-``."""
    allowed = tuple(origins.split(",")) if origins else ()
    async with running_gateway(MemoryDirectory(), host=host, origins=allowed) as gateway:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await gateway.http.request(method, path, headers=named)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost", True),
        ("https://localhost:8443", True),
        ("http://127.0.0.1:3000", True),
        ("http://0.0.0.0", True),
        ("app://obsidian.md", True),
        ("tauri://localhost", True),
        ("vscode-webview://abc", True),
        ("file://", True),
        ("http://localhost.evil.com", False),
        ("http://localhostx:80", False),
        ("https://example.com", False),
        ("chrome-extension://abcdef", False),
        ("null", False),
    ],
)
def test_default_origins(origin: str, allowed: bool) -> None:
    assert AllowedOrigins(()).allows(origin) is allowed


def test_a_wildcard_origin_matches_any_text() -> None:
    origins = AllowedOrigins(["https://*.corp.example"])
    assert origins.allows("https://a.corp.example")
    assert not origins.allows("https://corp.example")


def test_an_origin_with_two_wildcards_is_rejected() -> None:
    with pytest.raises(InvalidSetting, match="only one"):
        AllowedOrigins(["http://*.a.*"])


async def test_a_disallowed_origin_gets_403_without_a_body_for_every_method() -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = await ask(method, origin="https://evil.example")
        assert (answer.status_code, answer.content) == (403, b"")


async def test_an_allowed_origin_is_returned_in_the_response() -> None:
    answer = await ask("GET", origin="http://localhost:3000")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers


async def test_preflight() -> None:
    answer = await ask("OPTIONS", "/api/chat", origin="http://localhost", access_control_request_method="POST")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert answer.headers["access-control-max-age"] == "43200"
    assert answer.headers["vary"] == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    allowed = answer.headers["access-control-allow-headers"].lower().split(",")
    assert {"authorization", "content-type", "openai-beta", "x-stainless-retry-count"} <= set(allowed)


async def test_a_star_allows_every_origin() -> None:
    answer = await ask("GET", origins="*", origin="https://anything.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "vary" not in answer.headers


async def test_the_origin_of_the_host_itself_is_not_checked() -> None:
    answer = await ask("GET", host="0.0.0.0", origin="https://models.example", Host="models.example")
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_errors_carry_the_cors_headers_too() -> None:
    answer = await ask("GET", "/nowhere", origin="http://localhost")
    assert answer.status_code == 404
    assert answer.headers["access-control-allow-origin"] == "http://localhost"


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (b"localhost:11434", True),
        (b"LOCALHOST", True),
        (b"", True),
        (b"127.0.0.1", True),
        (b"127.0.0.1:80", True),
        (b"[::1]:11434", True),
        (b"::1", True),
        (b"10.1.2.3:1", True),
        (b"192.168.0.9", True),
        (b"[fd00::1]:5", True),
        (b"0.0.0.0", True),
        (b"box.local", True),
        (b"a.internal:80", True),
        (b"x.localhost", True),
        (socket.gethostname().encode(), True),
        (b"evil.example", False),
        (b"localhost.evil.example:11434", False),
        (b"8.8.8.8", False),
        (b"169.254.169.254", False),
        (b"local", False),
        (b"\xff\xfe", False),
    ],
)
def test_hosts(header: bytes, allowed: bool) -> None:
    assert host_allowed(header) is allowed


async def test_the_host_check_applies_to_a_loopback_listener_only() -> None:
    refused = await ask("GET", host="127.0.0.1", Host="evil.example")
    assert (refused.status_code, refused.content) == (403, b"")
    assert (await ask("GET", host="0.0.0.0", Host="evil.example")).status_code == 200


@pytest.mark.parametrize(
    ("host", "expected"), [("localhost", True), ("::1", True), ("127.9.9.9", True), ("0.0.0.0", False)]
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
