"""docs/troubleshooting.md quotes texts that the code has: each one is searched in the string literals of the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.snippets import DOCS, ROOT

PAGE = DOCS / "troubleshooting.md"
VALUE = "\0"
"""Stands for a value in a text of the code, as ``…`` does on the page."""


def _quotes(page: str) -> list[str]:
    """Return the texts in code spans in the first column of the tables with the column ``text``."""
    found: list[str] = []
    quoting = False
    for line in page.splitlines():
        first = line.split(" | ")[0]
        if not line.startswith("|"):
            quoting = False
        elif first == "| text":
            quoting = True
        elif quoting:
            found += re.findall(r"`([^`]+)`", first)
    return found


def _literals(source: str) -> Iterator[str]:
    """Yield every string literal of a module but docstrings; values in f-strings are ``VALUE``."""
    nodes = list(ast.walk(ast.parse(source)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if id(node) in docstrings:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
            yield "".join(part for part in parts if isinstance(part, str))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@cache
def _all_literals() -> str:
    paths = [path for part in ("operator", "server") for path in (ROOT / part).rglob("*.py")]
    return "\n".join(text for path in paths for text in _literals(path.read_text("utf-8")))


def _pattern(quote: str) -> str:
    """Return the expression of a quote: each ``…`` is a value, or any text of the same line."""
    return "[^\n]*".join(re.escape(part) for part in quote.strip("…").split("…"))


@pytest.mark.parametrize("quote", _quotes(PAGE.read_text("utf-8")))
def test_a_quoted_text_is_in_the_source(quote: str) -> None:
    assert len(quote.replace("…", "").strip()) > 7, "too short to be searched"
    assert re.search(_pattern(quote), _all_literals()), f"the code has no text {quote!r}: correct the page"


def test_a_text_that_no_module_has_is_noticed() -> None:
    page = "| text | cause |\n|---|---|\n| `the moon is …` (503) | `x` |\n\n| seen |\n|---|\n| `y` |\n"
    assert _quotes(page) == ["the moon is …"]
    assert not re.search(_pattern("the moon is …"), _all_literals())


def test_docstrings_are_no_texts() -> None:
    assert list(_literals("def f():\n    'kept'\n    return 'shown'")) == ["shown"]


def test_values_of_f_strings_match_the_ellipsis(tmp_path: Path) -> None:
    [text, *_] = _literals("print(f'model {name} is {state:>3}, please')")
    assert re.fullmatch(_pattern("model … is …, please"), text)
