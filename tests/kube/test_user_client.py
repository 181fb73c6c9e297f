"""Client of a user: the kubeconfig's contexts, responses that are no objects, and merge patches."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from corral_kube.client import connect_as_user
from corral_kube.errors import APIRequestRejected, KubeError
from tests.kube.http_api import client_of

TWO_CONTEXTS = """\
apiVersion: v1
kind: Config
current-context: one
users: [{name: u, user: {token: x}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts:
  - {name: one, context: {cluster: c, user: u}}
  - {name: two, context: {cluster: c, user: u, namespace: team-b}}
"""


@pytest.mark.parametrize(("context", "namespace"), [("", "default"), ("one", "default"), ("two", "team-b")])
async def test_the_namespace_is_that_of_the_context(tmp_path: Path, context: str, namespace: str) -> None:
    file = tmp_path / "config"
    file.write_text(TWO_CONTEXTS)
    client, found = await connect_as_user(str(file), context, manager="test")
    await client.close()
    assert found == namespace


@pytest.mark.parametrize("context", ["three", ""])
async def test_without_credentials_the_error_says_so(tmp_path: Path, context: str) -> None:
    file = tmp_path / "config"
    if context:
        file.write_text(TWO_CONTEXTS)
    with pytest.raises(KubeError, match="no credentials"):
        await connect_as_user(str(file), context, manager="test")


async def test_a_stream_yields_what_arrives(tmp_path: Path) -> None:
    async def respond(request: web.Request) -> web.StreamResponse:
        assert request.query["follow"] == "true"
        return web.Response(text="one\ntwo\n")

    async with client_of(respond, tmp_path) as kube:
        pieces = [piece async for piece in kube.stream("GET", "/log", query={"follow": "true"})]
    assert b"".join(pieces) == b"one\ntwo\n"


async def test_a_refused_stream_has_the_servers_message(tmp_path: Path) -> None:
    async def respond(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "message": "container is waiting"}, status=400)

    async with client_of(respond, tmp_path) as kube:
        with pytest.raises(APIRequestRejected) as caught:
            _ = [piece async for piece in kube.stream("GET", "/log")]
    assert caught.value.server_message == "container is waiting"
