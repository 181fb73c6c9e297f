"""Requests of ``kubectl corral`` to a gateway: through the API server, and by the gateway's own URL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from corral_core.base.json_fields import JsonObject
from corral_kube.client import KubeClient, connect_as_user
from corral_kubectl.gateway import GatewayRequests, Service, service_of
from corral_kubectl.models import CommandFailed
from tests.kube.http_api import CONFIG
from tests.kubectl.samples import model

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(respond: Respond, folder: Path) -> AsyncIterator[tuple[KubeClient, str]]:
    """Yield a client of an API server that answers by ``respond``, and its URL."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", respond)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        file = folder / "config"
        file.write_text(CONFIG.format(port=port))
        kube, _ = await connect_as_user(str(file), "", manager="test")
        try:
            yield kube, f"http://127.0.0.1:{port}"
        finally:
            await kube.close()
    finally:
        await runner.cleanup()


async def posted(requests: GatewayRequests) -> list[JsonObject]:
    return [line async for line in requests.post("/api/pull", {"model": "lab/llama"})]


async def test_a_response_is_read_line_by_line_through_the_api_server(tmp_path: Path) -> None:
    seen: list[tuple[str, str, object]] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        seen.append((request.method, request.path, await request.json()))
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"status":"pul', b'ling"}\n{"status":', b'"success"}'):
            await response.write(piece)
        return response

    async with served(respond, tmp_path) as (kube, _):
        lines = await posted(GatewayRequests(kube, Service("corral", "models")))
    assert lines == [{"status": "pulling"}, {"status": "success"}]
    path = "/api/v1/namespaces/corral/services/models:http/proxy/api/pull"
    assert seen == [("POST", path, {"model": "lab/llama"})]


async def test_by_its_url_the_gateway_gets_the_key(tmp_path: Path) -> None:
    keys: list[str] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers.get("authorization", ""))
        return web.json_response({"done": True})

    async with served(respond, tmp_path) as (kube, url):
        assert await posted(GatewayRequests(kube, None, url=f"{url}/", key="corral_x")) == [{"done": True}]
        assert await posted(GatewayRequests(kube, None, url=url)) == [{"done": True}]
    assert keys == ["Bearer corral_x", ""]


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (401, {"error": "an API key is required"}, "set --gateway URL"),
        (403, {"kind": "Status", "message": "services is forbidden"}, "create on services/proxy"),
        (404, {"kind": "Status", "message": 'services "models" not found'}, "set --service NAMESPACE/NAME"),
        (404, {"error": "model 'lab/llama' not found"}, "the gateway refuses: model 'lab/llama' not found"),
        (503, {"error": "the gateway is starting"}, "the gateway is starting"),
        (200, {"error": "the Model was deleted"}, "the gateway refuses: the Model was deleted"),
        (200, [1], "this is no gateway"),
    ],
)
async def test_a_refusal_says_what_to_do(tmp_path: Path, status: int, body: object, text: str) -> None:
    async def respond(_request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    async with served(respond, tmp_path) as (kube, _):
        with pytest.raises(CommandFailed, match=text):
            await posted(GatewayRequests(kube, Service("corral", "models")))


async def test_a_gateway_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    async def respond(_request: web.Request) -> web.StreamResponse:
        return web.Response()

    async with served(respond, tmp_path) as (kube, url):
        pass
    with pytest.raises(CommandFailed, match="cannot reach the gateway"):
        await posted(GatewayRequests(kube, None, url=url))


def test_the_service_is_that_of_the_installation_or_the_given_one() -> None:
    item = model(operator="corral/models-operator")
    assert service_of(item, "", tls=False) == Service("corral", "models")
    assert service_of(item, "a/b", tls=True).path == "/api/v1/namespaces/a/services/https:b:http/proxy"
    for unknown, given in ((model(), ""), (item, "corral")):
        with pytest.raises(CommandFailed):
            service_of(unknown, given, tls=False)
