"""Which handler answers a method on a path, and what is said when none does: as Ollama's router says it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from corral_server.gateway.messages import TEXT_TYPE, Answer, Request

Handler = Callable[[Request], Awaitable["Answer | None"]]
"""Gives the answer, or None when it has answered by itself."""

NOT_FOUND = Answer(404, b"404 page not found", TEXT_TYPE)
METHOD_NOT_ALLOWED = Answer(405, b"405 method not allowed", TEXT_TYPE)


class Routes:
    """A table ``path -> method -> handler``; a path that ends in ``/*`` stands for all below it."""

    def __init__(self, table: Mapping[str, Mapping[str, Handler]]) -> None:
        self._exact = {path: dict(methods) for path, methods in table.items() if not path.endswith("/*")}
        self._below = {path[:-1]: dict(methods) for path, methods in table.items() if path.endswith("/*")}

    def find(self, method: str, path: str) -> Handler | Answer:
        """The handler, or the answer when there is none."""
        methods = self._methods(path)
        if methods is not None:
            return methods.get(method, METHOD_NOT_ALLOWED)
        if path.endswith("/") and method in (self._methods(path.rstrip("/")) or ()):
            return _redirect(method, path.rstrip("/"))
        return NOT_FOUND

    def _methods(self, path: str) -> dict[str, Handler] | None:
        found = self._exact.get(path)
        if found is None:
            for start, methods in self._below.items():
                if path.startswith(start) and len(path) > len(start):
                    return methods
        return found


def _redirect(method: str, path: str) -> Answer:
    """``path`` is one of the table's: a slash too many was sent. Other methods than GET are repeated as they are."""
    location = ((b"location", path.encode("ascii")),)
    if method == "GET":
        body = f'<a href="{path}">Moved Permanently</a>.\n\n'.encode()
        return Answer(301, body, b"text/html; charset=utf-8", location)
    return Answer(307, content_type=None, headers=location)
