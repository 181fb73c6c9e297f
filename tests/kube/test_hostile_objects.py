"""One object that cannot be read leaves lists and watches of all other objects alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import web

from corral_core.base.exposition import expose
from corral_core.base.json_fields import JsonObject, get_str, get_value
from corral_kube.errors import APIServerUnreachable
from corral_kube.list_watch import ListWatch
from corral_kube.reflector import Reflector
from tests.kube.fake_server import discard
from tests.kube.http_api import client_of, nested
from tests.support.waiting import auntil

PATH = "/apis/corral.dev/v1alpha1/models"
DEEP = nested(1_100)


def text(name: str, affinity: str = "{}", **metadata: str) -> str:
    fields = {"namespace": "lab", "name": name, "resourceVersion": "5", **metadata}
    return f'{{"metadata":{json.dumps(fields)},"spec":{{"affinity":{affinity}}}}}'


def page(*items: str, more: str = "") -> web.Response:
    body = f'{{"metadata":{{"resourceVersion":"7","continue":"{more}"}},"items":[{",".join(items)}]}}'
    return web.Response(body=body.encode(), content_type="application/json")


class Server:
    """Lists pages and then streams lines of a watch."""

    def __init__(self, *pages: web.Response, lines: list[bytes] | None = None) -> None:
        self.pages = list(pages)
        self.lines = lines or []
        self.lists = 0

    async def respond(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            return self.pages.pop(0)
        response = web.StreamResponse()
        await response.prepare(request)
        for line in self.lines:
            await response.write(line + b"\n")
        await asyncio.Event().wait()
        return response


def names(items: Mapping[str, JsonObject] | list[JsonObject]) -> list[str]:
    return [get_str(item, "metadata", "name") for item in (items.values() if isinstance(items, Mapping) else items)]


async def test_a_deep_object_leaves_the_others_of_its_page(tmp_path: Path) -> None:
    server = Server(page(text("a"), text("deep", DEEP), text("b"), more="x"), page(text("c")))
    async with client_of(server.respond, tmp_path) as kube:
        listing = await kube.list(PATH)
        assert names(list(listing.items)) == ["a", "deep", "b", "c"]
        assert get_value(listing.items[2], "spec", "affinity") == {}
        exposition = expose([lambda: kube.calls.families("corral_operator")])[0].decode()
        assert 'corral_operator_unreadable_objects{resource="models"} 1.0' in exposition


async def test_an_object_that_cannot_be_trimmed_is_left_out_of_its_page(tmp_path: Path) -> None:
    def trim(item: JsonObject) -> JsonObject:
        if get_str(item, "metadata", "name") == "bad":
            raise OverflowError("a number")
        return item

    server = Server(page(text("a"), text("bad"), text("b")), page(text("a"), text("b")))
    async with client_of(server.respond, tmp_path) as kube:
        assert names(list((await kube.list(PATH, trim=trim)).items)) == ["a", "b"]
        assert list(kube.calls.unreadable.listed()) == [(PATH, "lab/bad")]
        await kube.list(PATH, trim=trim)
        assert not list(kube.calls.unreadable.listed()), "the object is gone"


@pytest.mark.parametrize("body", [b"<html>login</html>", b"[]", b'{"items":'])
async def test_a_response_that_is_no_object_is_no_empty_list(body: bytes, tmp_path: Path) -> None:
    server = Server(web.Response(body=body))
    async with client_of(server.respond, tmp_path) as kube:
        with pytest.raises(APIServerUnreachable, match="not"):
            await kube.list(PATH)


async def test_a_watch_goes_on_after_deep_and_long_lines(tmp_path: Path) -> None:
    long_label = "x" * 1_400_000
    events = [
        f'{{"type":"ADDED","object":{text("deep", DEEP)}}}',
        f'{{"type":"ADDED","object":{text("long", license=long_label)}}}',
        f'{{"type":"ADDED","object":{text("good")}}}',
    ]
    server = Server(page(), lines=[event.encode() for event in events])
    seen: dict[str, JsonObject] = {}

    def changed(before: JsonObject | None, after: JsonObject | None) -> None:
        if after is not None:
            seen[get_str(after, "metadata", "name")] = after

    async with client_of(server.respond, tmp_path) as kube:
        reflector = Reflector(kube, PATH, changed=changed, log=discard, unreadable=kube.calls.unreadable)
        task = asyncio.create_task(reflector.run())
        await auntil(lambda: "good" in seen or task.done())
        assert not task.done()
        assert names(seen) == ["deep", "long", "good"]
        assert get_str(seen["long"], "metadata", "license") == long_label
        assert list(kube.calls.unreadable.listed()) == [(PATH, "lab/deep")]
        assert server.lists == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_object_that_cannot_be_processed_leaves_the_others(tmp_path: Path) -> None:
    lines = [f'{{"type":"{kind}","object":{text(name)}}}' for kind, name in (("ADDED", "bad"), ("ADDED", "good"))]
    server = Server(page(text("a"), text("bad"), text("b")), lines=[line.encode() for line in lines])
    seen: list[str] = []

    def changed(before: JsonObject | None, after: JsonObject | None) -> None:
        name = get_str(after, "metadata", "name")
        if name == "bad":
            raise RecursionError("too deep")
        seen.append(name)

    async with client_of(server.respond, tmp_path) as kube:
        reflector = Reflector(kube, PATH, changed=changed, log=discard, unreadable=kube.calls.unreadable)
        task = asyncio.create_task(reflector.run())
        await auntil(lambda: "good" in seen or task.done())
        assert not task.done()
        assert seen == ["a", "b", "good"]
        assert list(kube.calls.unreadable.listed()) == [(PATH, "lab/bad")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_store_that_fails_for_one_object_receives_the_next(tmp_path: Path) -> None:
    class Store:
        def __init__(self) -> None:
            self.applied: list[str] = []

        def replace(self, items: object, version: str) -> None: ...

        def apply(self, item: JsonObject) -> None:
            self.applied.append(get_str(item, "metadata", "name"))
            if self.applied == ["bad"]:
                raise ValueError("4,300 digits")

        def delete(self, item: JsonObject) -> None: ...

    lines = [f'{{"type":"ADDED","object":{text(name)}}}'.encode() for name in ("bad", "good")]
    store = Store()
    async with client_of(Server(page(), lines=lines).respond, tmp_path) as kube:
        task = asyncio.create_task(ListWatch(kube, PATH, store, log=discard).run())
        await auntil(lambda: store.applied == ["bad", "good"] or task.done())
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
