"""Fake API server of one resource for the list-watch tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from corral_core.base.json_fields import JsonObject
from corral_kube.client import ObjectList, Transform, identity
from corral_kube.errors import APIServerUnreachable, KubeError

Event = tuple[str, JsonObject]


class FakeServer:
    """Lists ``items``; a watch yields what is put into ``events``, and raises the exceptions among them.

    ``version`` is the version of the next list. Like an API server, a watch from a later version yields nothing.
    ``selected`` are label and field selector of each call.
    """

    def __init__(self, *items: JsonObject) -> None:
        self.items = list(items)
        self.events: asyncio.Queue[Event | KubeError] = asyncio.Queue()
        self.watched_from: list[str] = []
        self.selected: list[tuple[str, str]] = []
        self.lists = 0
        self.version = 10
        self.reachable = True

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity) -> ObjectList:
        self.lists += 1
        self.selected.append((selector, fields))
        return ObjectList([trim(each) for each in self.items], await self.current_version(path))

    async def current_version(self, path: str, *, fields: str = "") -> str:
        if not self.reachable:
            raise APIServerUnreachable("no answer")
        return str(self.version)

    async def watch(self, path: str, version: str, *, selector: str = "", fields: str = "") -> AsyncIterator[Event]:
        self.watched_from.append(version)
        self.selected.append((selector, fields))
        while True:
            event = await self.events.get()
            if isinstance(event, KubeError):
                raise event
            if int(version) <= self.version:
                yield event


def item(name: str, version: str = "1", **fields: object) -> JsonObject:
    return {"metadata": {"namespace": "lab", "name": name, "resourceVersion": version}, **fields}


def discard(name: str, **fields: object) -> None:
    """Discard a log event."""
