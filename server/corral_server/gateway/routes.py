"""Which handler answers a method on a path, and what is said when none does: as Ollama's router says it."""

from __future__ import annotations

import html
import posixpath
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Mapping

from corral_server.gateway.messages import Answer, Request

Handler = Callable[[Request], Awaitable["Answer | None"]]
"""Gives the answer, or None when it has answered by itself."""

_TEXT = b"text/plain"
_HTML = b"text/html; charset=utf-8"
_SAFE = "/:@!$&'()*+,;=~-._"

NOT_FOUND = Answer(404, b"404 page not found", _TEXT)


class Routes:
    """A table ``path -> method -> handler``; a path that ends in ``/*`` stands for all below it."""

    def __init__(self, table: Mapping[str, Mapping[str, Handler]]) -> None:
        self._exact = {path: dict(methods) for path, methods in table.items() if not path.endswith("/*")}
        self._below = {path[:-1]: dict(methods) for path, methods in table.items() if path.endswith("/*")}

    def find(self, method: str, path: str, query: bytes = b"") -> Handler | Answer:
        """The handler, or the answer when there is none."""
        methods = self._exact.get(path)
        if methods is None and path.startswith("/") and path != (clean := _cleaned(path)):
            return _redirect(method, clean, query, again=307)
        methods = methods or self._all_below(path)
        if methods is not None:
            return methods.get(method) or _not_allowed(methods)
        if path.endswith("/") and method in (self._methods(path.rstrip("/")) or ()):
            return _redirect(method, path.rstrip("/"), query, again=301)
        return NOT_FOUND

    def _methods(self, path: str) -> dict[str, Handler] | None:
        return self._exact.get(path) or self._all_below(path)

    def _all_below(self, path: str) -> dict[str, Handler] | None:
        for start, methods in self._below.items():
            if path.startswith(start) and len(path) > len(start):
                return methods
        return None


def _not_allowed(methods: Iterable[str]) -> Answer:
    allowed = ", ".join(sorted(methods, key=("HEAD", "GET", "POST", "DELETE").index))
    return Answer(405, b"405 method not allowed", _TEXT, ((b"allow", allowed.encode("ascii")),))


def _cleaned(path: str) -> str:
    """Without empty parts and dots: clients join ``http://host/`` and ``/api/tags``. A slash at the end stays."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _redirect(method: str, path: str, query: bytes, *, again: int) -> Answer:
    """``again`` is the status for GET; other methods are repeated as they are."""
    target = urllib.parse.quote(path, safe=_SAFE) + (f"?{query.decode('latin-1')}" if query else "")
    location = ((b"location", target.encode("latin-1")),)
    if method != "GET":
        return Answer(307, content_type=None, headers=location)
    reason = "Moved Permanently" if again == 301 else "Temporary Redirect"
    return Answer(again, f'<a href="{html.escape(target)}">{reason}</a>.\n\n'.encode("latin-1"), _HTML, location)
