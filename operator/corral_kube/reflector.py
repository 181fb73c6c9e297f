"""A copy of all objects of one kind, kept up to date through anything: listed once, then watched.

Of each object only what is wanted is kept, and only a change of that is told. While the API server is away the copy
stays as it was; afterwards the watch goes on from where it was, or, when that is not possible any more, everything is
listed anew.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from corral_core.jsonfields import Json, text
from corral_kube.client import Listing, Trim, whole
from corral_kube.errors import KubeError, Unreachable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class Source(Protocol):
    """What is needed of the API server; ``corral_kube.client.Kube``."""

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Trim = whole) -> Listing: ...

    def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, Json]]: ...


class Said(Protocol):
    """Writes an event to the process's log."""

    def __call__(self, name: str, *, path: str, reason: str = ...) -> None: ...


class Reflector:
    """``changed(before, after)`` is called after every change of ``objects``; one of the two is None at its ends.

    ``objects`` is by ``namespace/name``, and holds what ``trim`` leaves of each; it must leave these two. ``selector``
    is by labels, ``fields`` by fields, in the API's own words; an object that they select no longer counts as deleted.
    """

    def __init__(
        self,
        source: Source,
        path: str,
        *,
        changed: Callable[[Json | None, Json | None], None],
        said: Said,
        selector: str = "",
        fields: str = "",
        trim: Trim = whole,
    ) -> None:
        self._source = source
        self._path = path
        self._selector = selector
        self._fields = fields
        self._trim = trim
        self._said = said
        self._changed = changed
        self._objects: dict[str, Json] = {}
        self._version = ""
        self._pause = _FIRST_PAUSE
        self._answers = True
        self._listed = asyncio.Event()

    @property
    def objects(self) -> Mapping[str, Json]:
        return self._objects

    @property
    def listed(self) -> bool:
        """Whether everything was listed once."""
        return self._listed.is_set()

    async def wait_listed(self) -> None:
        await self._listed.wait()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
            except Unreachable as error:
                if self._answers:
                    self._said("api_server_away", path=self._path, reason=str(error))
                self._answers = False
            except KubeError as error:
                self._version = ""
                self._said("listing_anew", path=self._path, reason=str(error))
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads the load, keeps no secret
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _list(self) -> None:
        selected = {"selector": self._selector, "fields": self._fields}
        listing = await self._source.list(self._path, **selected, trim=self._trim)
        current = {_key(item): item for item in listing.items}
        for key in self._objects.keys() - current.keys():
            self._set(key, None)
        for key, item in current.items():
            self._set(key, item)
        self._version = listing.version
        self._listed.set()
        self._heard()

    async def _watch(self) -> None:
        selected = {"selector": self._selector, "fields": self._fields}
        async for kind, item in self._source.watch(self._path, self._version, **selected):
            self._heard()
            self._version = text(item, "metadata", "resourceVersion") or self._version
            if kind != "BOOKMARK":
                self._set(_key(item), None if kind == "DELETED" else self._trim(item))

    def _heard(self) -> None:
        self._pause = _FIRST_PAUSE
        if not self._answers:
            self._said("api_server_back", path=self._path)
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
