"""Session of kopf's watches: kopf receives no value that is nested too deep."""

from __future__ import annotations

import json

import kopf
from aiohttp import web

from corral_kube.bounded_json import is_deep
from corral_operator.observe.kopf_session import session
from tests.kube.http_api import nested, served

LONG = "x" * 1_400_000


async def test_lists_and_lines_of_watches_have_no_deep_values() -> None:
    lines = [f'{{"name":"deep","spec":{nested(1_100)}}}', f'{{"name":"{LONG}"}}', '{"name":"good"}']

    async def respond(request: web.Request) -> web.StreamResponse:
        if request.path == "/list":
            return web.Response(body=f'{{"items":[{",".join(lines)}]}}'.encode(), content_type="application/json")
        return web.Response(body="\n".join([*lines, ""]).encode())

    async with served(respond) as port:
        connection = kopf.ConnectionInfo(server=f"http://127.0.0.1:{port}", insecure=True, token="t")
        async with session(connection.as_ssl_context(), connection.as_http_headers()) as http:
            async with http.get(f"{connection.server}/list") as response:
                listed = (await response.json())["items"]
            async with http.get(f"{connection.server}/watch") as response:
                watched = [json.loads(line) async for line in response.content.iter_chunked(1 << 20)]
    for found in (listed, watched):
        assert [item["name"] for item in found] == ["deep", LONG, "good"]
        assert not any(map(is_deep, found))
