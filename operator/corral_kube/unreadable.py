"""Objects of the API server that this process cannot read: each is skipped, and the others are processed.

An error in one object, such as a value that no code expects, must not end a watch or a process: the permission to write
one object would be the permission to stop the installation. The object is logged when it becomes unreadable and counted
while it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Set

from corral_core.base import json_log
from corral_core.base.json_fields import JsonObject, get_str

_LONGEST_REASON = 500
_TOO_DEEP = "its values are nested too deep"


class UnreadableObjects:
    """Objects by the path of their list, which ``path`` names, and ``namespace/name``. Used on one event loop."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], dict[str, str]] = {}

    def isolated(self, path: str, item: JsonObject) -> Isolation:
        """Return the context of a block that processes one object; an error of it is recorded instead of raised."""
        return Isolation(self, path, item)

    def set_error(self, path: str, item: JsonObject, error: Exception | None) -> None:
        """Record the error of the object's processing, None for a success."""
        if error is not None:
            self._report(path, item, cause="processing", reason=f"{type(error).__name__}: {error}")
        elif self._reasons:
            self._clear(path, item, cause="processing")

    def set_deep(self, path: str, item: JsonObject, deep: bool) -> None:
        """Record whether a value of the object was replaced because it is nested too deep."""
        if deep:
            self._report(path, item, cause="depth", reason=_TOO_DEEP)
        elif self._reasons:
            self._clear(path, item, cause="depth")

    def forget(self, path: str, item: JsonObject) -> None:
        """Drop a deleted object."""
        self._reasons.pop((path, key_of(item)), None)

    def keep(self, path: str, keys: Set[str]) -> None:
        """Drop all objects of the path except ``keys``: a complete list has no others."""
        for known in [known for known in self._reasons if known[0] == path and known[1] not in keys]:
            del self._reasons[known]

    def listed(self) -> Iterator[tuple[str, str]]:
        """Yield path and key of each object."""
        yield from self._reasons

    def _report(self, path: str, item: JsonObject, *, cause: str, reason: str) -> None:
        key = key_of(item)
        reasons = self._reasons.setdefault((path, key), {})
        reason = reason[:_LONGEST_REASON]
        if reasons.get(cause) != reason:
            reasons[cause] = reason
            fields = {"path": path, "object": key, "reason": reason}
            json_log.log_event("corral.kube", "object_unreadable", level=logging.WARNING, fields=fields)

    def _clear(self, path: str, item: JsonObject, *, cause: str) -> None:
        key = (path, key_of(item))
        reasons = self._reasons.get(key)
        if reasons is not None and reasons.pop(cause, None) is not None and not reasons:
            del self._reasons[key]


class Isolation:
    """Context manager that records every Exception of its block; others, such as a cancellation, are raised."""

    def __init__(self, unreadable: UnreadableObjects, path: str, item: JsonObject) -> None:
        self._unreadable = unreadable
        self._path = path
        self._item = item

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if error is None or isinstance(error, Exception):
            self._unreadable.set_error(self._path, self._item, error)
            return True
        return False


def key_of(item: JsonObject) -> str:
    """Return ``namespace/name``."""
    return f"{get_str(item, 'metadata', 'namespace')}/{get_str(item, 'metadata', 'name')}"
