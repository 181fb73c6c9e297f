"""The directory as the key of this task sees it: what is not for it is not there.

Lists, descriptions and what is loaded are all made from a Directory, so that none of them can forget to look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from corral_server.gateway.directory import Directory, Entry
from corral_server.gateway.keys.guard import CURRENT


class AllowedDirectory:
    """A Directory over another."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def find(self, name: str) -> Entry | None:
        """Raises InvalidName."""
        entry, key = self._directory.find(name), CURRENT.get()
        return entry if key is None or key.allows(name) else None

    def get(self, key: str) -> Entry | None:
        return self._directory.get(key)

    def entries(self) -> Sequence[Entry]:
        key = CURRENT.get()
        if key is None:
            return self._directory.entries()
        seen = []
        for entry in self._directory.entries():
            names = tuple(name for name in entry.names if key.allows(name))
            if names:
                seen.append(entry if len(names) == len(entry.names) else replace(entry, names=names))
        return seen

    def subscribe(self, changed: Callable[[str], None]) -> None:
        self._directory.subscribe(changed)

    def demand(self, key: str, waiting: int, oldest: float | None) -> None:
        self._directory.demand(key, waiting, oldest)

    def settled(self) -> bool:
        return self._directory.settled()
