"""List and watch of one resource that feeds a store, after the reflector of client-go.

Invariants:
- The store receives one ``replace`` with everything that the selectors match, then an ``apply`` or ``delete`` for each
  change.
- An object whose processing raises is skipped and recorded (``unreadable``); the list-watch goes on.
- While the API server is unreachable the store keeps its contents. The watch resumes from its last resource version.
- Everything is listed again if that version has expired, after an outage, and if the API server is behind that version.
  It is behind after etcd was restored from a backup: versions begin again at a lower number, and a watch from the old
  one would receive nothing, not even bookmarks, until the numbers have caught up.

Reference: client-go, tools/cache/reflector.go.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from corral_core.base.json_fields import JsonObject, get_str
from corral_kube.client import ObjectList, Transform, identity
from corral_kube.errors import APIServerUnreachable, KubeError
from corral_kube.unreadable import UnreadableObjects

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class ListerWatcher(Protocol):
    """The calls that a list-watch makes to the API server; implemented by ``corral_kube.client.KubeClient``."""

    async def list(
        self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity
    ) -> ObjectList: ...

    async def current_version(self, path: str, *, fields: str = "") -> str: ...

    def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, JsonObject]]: ...


class EventLogger(Protocol):
    """Writes an event to the log of the process."""

    def __call__(self, name: str, *, path: str, reason: str = ...) -> None: ...


class WatchedStore(Protocol):
    """Receives the objects. All methods are called on the event loop that runs the list-watch."""

    def replace(self, items: Sequence[JsonObject], version: str) -> None: ...

    def apply(self, item: JsonObject) -> None: ...

    def delete(self, item: JsonObject) -> None: ...


class ListWatch:
    """Keeps ``store`` up to date with the objects at ``path``.

    ``selector`` is a label selector and ``fields`` a field selector, in the syntax of the API; an object that no longer
    matches counts as deleted. The store receives what ``trim`` keeps of each object. ``unreadable`` records the objects
    that are skipped.
    """

    def __init__(
        self,
        source: ListerWatcher,
        path: str,
        store: WatchedStore,
        *,
        log: EventLogger,
        selector: str = "",
        fields: str = "",
        trim: Transform = identity,
        unreadable: UnreadableObjects | None = None,
    ) -> None:
        self._source = source
        self._path = path
        self._store = store
        self._log = log
        self._selector = selector
        self._fields = fields
        self._trim = trim
        self._unreadable = unreadable or UnreadableObjects()
        self._version = ""
        self._pause = _FIRST_PAUSE
        self._reachable = True
        self._synced = asyncio.Event()

    @property
    def synced(self) -> bool:
        """Whether the first list is complete."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            try:
                if not self._version or await self._restored():
                    await self._list()
                await self._watch()
            except APIServerUnreachable as error:
                if self._reachable:
                    self._log("api_server_unreachable", path=self._path, reason=str(error))
                self._reachable = False
            except KubeError as error:
                self._version = ""
                self._log("watch_restarted", path=self._path, reason=str(error))
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311  spreads the load, keeps no secret
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    async def _restored(self) -> bool:
        """Return whether the API server has an older state than the store has.

        When the API server does not respond, everything is listed later: a restored one may have caught up by then.
        """
        try:
            current = await self._source.current_version(self._path, fields=self._fields)
        except APIServerUnreachable:
            self._version = ""
            raise
        if not is_older(current, self._version):
            return False
        self._log("api_server_restored", path=self._path, reason=f"its version is {current}, after {self._version}")
        return True

    async def _list(self) -> None:
        selected = {"selector": self._selector, "fields": self._fields}
        listing = await self._source.list(self._path, **selected, trim=self._trim)
        self._store.replace(listing.items, listing.version)
        self._version = listing.version
        self._synced.set()
        self._mark_reachable()

    async def _watch(self) -> None:
        selected = {"selector": self._selector, "fields": self._fields}
        async for kind, item in self._source.watch(self._path, self._version, **selected):
            self._mark_reachable()
            self._version = get_str(item, "metadata", "resourceVersion") or self._version
            if kind == "BOOKMARK":
                continue
            with self._unreadable.isolated(self._path, item):
                change = self._store.delete if kind == "DELETED" else self._store.apply
                change(self._trim(item))
            if kind == "DELETED":
                self._unreadable.forget(self._path, item)

    def _mark_reachable(self) -> None:
        self._pause = _FIRST_PAUSE
        if not self._reachable:
            self._log("api_server_reachable", path=self._path)
        self._reachable = True


def is_older(version: str, other: str) -> bool:
    """Return whether a resource version is older than another one of the same resource type.

    Both are compared as numbers (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions);
    versions that are not numbers have no order.
    """
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)
