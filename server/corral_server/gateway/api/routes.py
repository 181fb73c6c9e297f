"""Routes: the handler of a method on a path, and the responses without one, which equal those of Ollama's router."""

from __future__ import annotations

import html
import posixpath
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Mapping

from corral_server.gateway.messages import Request, Response

Handler = Callable[[Request], Awaitable["Response | None"]]
"""Returns the response, None when it has sent one."""

_TEXT = b"text/plain"
_HTML = b"text/html; charset=utf-8"
_SAFE = "/:@!$&'()*+,;=~-._"

NOT_FOUND = Response(404, b"404 page not found", _TEXT)


class Routes:
    """Table ``path -> method -> handler``; a path that ends in ``/*`` matches everything below it."""

    def __init__(self, table: Mapping[str, Mapping[str, Handler]]) -> None:
        self._exact = {path: dict(methods) for path, methods in table.items() if not path.endswith("/*")}
        self._below = {path[:-1]: dict(methods) for path, methods in table.items() if path.endswith("/*")}

    def find(self, method: str, path: str, query: bytes = b"") -> Handler | Response:
        """Return the handler, or the response when there is none."""
        methods = self._exact.get(path)
        if methods is None and path.startswith("/") and path != (clean := _cleaned(path)):
            return _redirect(method, clean, query, get_status=307)
        methods = methods or self._all_below(path)
        if methods is not None:
            return methods.get(method) or _not_allowed(methods)
        if path.endswith("/") and method in (self._methods(path.rstrip("/")) or ()):
            return _redirect(method, path.rstrip("/"), query, get_status=301)
        return NOT_FOUND

    def _methods(self, path: str) -> dict[str, Handler] | None:
        return self._exact.get(path) or self._all_below(path)

    def _all_below(self, path: str) -> dict[str, Handler] | None:
        for start, methods in self._below.items():
            if path.startswith(start) and len(path) > len(start):
                return methods
        return None


def _not_allowed(methods: Iterable[str]) -> Response:
    allowed = ", ".join(sorted(methods, key=("HEAD", "GET", "POST", "DELETE").index))
    return Response(405, b"405 method not allowed", _TEXT, ((b"allow", allowed.encode("ascii")),))


def _cleaned(path: str) -> str:
    """Remove empty and dot segments: clients join ``http://host/`` and ``/api/tags``. A trailing slash is kept."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _redirect(method: str, path: str, query: bytes, *, get_status: int) -> Response:
    """Redirect with ``get_status`` for GET and with 307 for other methods, which clients repeat unchanged."""
    target = urllib.parse.quote(path, safe=_SAFE) + (f"?{query.decode('latin-1')}" if query else "")
    location = ((b"location", target.encode("latin-1")),)
    if method != "GET":
        return Response(307, content_type=None, headers=location)
    reason = "Moved Permanently" if get_status == 301 else "Temporary Redirect"
    return Response(get_status, f'<a href="{html.escape(target)}">{reason}</a>.\n\n'.encode("latin-1"), _HTML, location)
