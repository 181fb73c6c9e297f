"""docs/reference/api.md lists every path of the gateway, with its methods."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from corral_server.gateway.api.creation.blobs import BLOBS
from corral_server.gateway.api.forwarded import APIS
from tests.docs.snippets import DOCS, ROOT

METHODS = {"GET", "HEAD", "POST", "DELETE"}
NO_API = "/ui"
"""Paths of the page for browsers."""


def _served() -> Iterator[tuple[str, str]]:
    """Yield each path and method of the route tables: dicts whose keys are methods, below a path."""
    for path in (ROOT / "server/corral_server/gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Dict):
                yield from _routes(node)
    yield from ((path, "POST") for path in APIS)


def _routes(table: ast.Dict) -> Iterator[tuple[str, str]]:
    for key, value in zip(table.keys, table.values, strict=True):
        if key is None or not isinstance(value, ast.Dict):
            continue
        methods = [one.value for one in value.keys if isinstance(one, ast.Constant)]
        if set(methods) <= METHODS and methods:
            yield from ((_path(key), str(method)) for method in methods)


def _path(key: ast.expr) -> str:
    """Return the path of a key: a text, or an f-string whose only value is ``BLOBS``."""
    if isinstance(key, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else BLOBS for part in key.values)
    assert isinstance(key, ast.Constant)
    return str(key.value)


def _documented() -> Iterator[tuple[str, str]]:
    for line in (DOCS / "reference/api.md").read_text("utf-8").splitlines():
        cells = line.split(" | ")
        methods = cells[0].strip("| ").split(", ")
        if len(cells) == 3 and set(methods) <= METHODS:
            yield from ((path, method) for path in re.findall(r"`([^`]+)`", cells[1]) for method in methods)


def test_the_page_lists_every_path_with_its_methods() -> None:
    served = {(path, method) for path, method in _served() if not path.startswith(NO_API)}
    assert len(served) > 40
    assert sorted(served ^ set(_documented())) == []
