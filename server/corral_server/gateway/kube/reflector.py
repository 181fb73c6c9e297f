"""A copy of all objects of one kind, kept up to date through anything: listed once, then watched.

While the API server is away the copy stays as it was; afterwards the watch goes on from where it was, or, when that is
not possible any more, everything is listed anew.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from corral_core.jsonfields import Json, text
from corral_kube.client import Listing
from corral_kube.errors import KubeError, Unreachable
from corral_server.gateway import log

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class Source(Protocol):
    """What is needed of the API server; ``corral_kube.client.Kube``."""

    async def list(self, path: str, *, selector: str = "") -> Listing: ...

    def watch(self, path: str, version: str, *, selector: str = "") -> AsyncIterator[tuple[str, Json]]: ...


class Reflector:
    """``changed(before, after)`` is called after every change of ``objects``; one of the two is None at its ends.

    ``objects`` is by ``namespace/name``.
    """

    def __init__(
        self, source: Source, path: str, *, changed: Callable[[Json | None, Json | None], None], selector: str = ""
    ) -> None:
        self._source = source
        self._path = path
        self._selector = selector
        self._changed = changed
        self._objects: dict[str, Json] = {}
        self._version = ""
        self._pause = _FIRST_PAUSE
        self._answers = True
        self.listed = False

    @property
    def objects(self) -> Mapping[str, Json]:
        return self._objects

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except Unreachable as error:
                if self._answers:
                    log.event("api_server_away", path=self._path, error=str(error))
                self._answers = False
            except KubeError as error:
                self._version = ""
                log.event("listing_anew", path=self._path, reason=str(error))
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads the load, keeps no secret
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _list(self) -> None:
        listing = await self._source.list(self._path, selector=self._selector)
        current = {_key(item): item for item in listing.items}
        for key in self._objects.keys() - current.keys():
            self._set(key, None)
        for key, item in current.items():
            self._set(key, item)
        self._version = listing.version
        self.listed = True
        self._heard()

    async def _watch(self) -> None:
        async for kind, item in self._source.watch(self._path, self._version, selector=self._selector):
            self._heard()
            self._version = text(item, "metadata", "resourceVersion") or self._version
            if kind != "BOOKMARK":
                self._set(_key(item), None if kind == "DELETED" else item)

    def _heard(self) -> None:
        self._pause = _FIRST_PAUSE
        if not self._answers:
            log.event("api_server_back", path=self._path)
        self._answers = True

    def _set(self, key: str, item: Json | None) -> None:
        before = self._objects.get(key)
        if before == item:
            return
        if item is None:
            del self._objects[key]
        else:
            self._objects[key] = item
        self._changed(before, item)


def _key(item: Json) -> str:
    return f"{text(item, 'metadata', 'namespace')}/{text(item, 'metadata', 'name')}"
