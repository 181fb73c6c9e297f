"""docs/compatibility.md: every row says what is the case and points at tests that exist, and nothing is left out."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.runner.chat.options import LOAD_OPTIONS, REQUEST_OPTIONS
from tests.support.gateway import MemoryDirectory

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "compatibility.md").read_text("utf-8")
POINTER = re.compile(r"`([\w/]+\.py)::(\w+)`")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split(" | "))
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("|---")
]
HEADINGS = {"what", "endpoint", "field", "option", "case", "command"}
BODY = [row for row in ROWS if row[0] not in HEADINGS]
NATIVE_FIELDS = [
    "model",
    "stream",
    "format",
    "keep_alive",
    "options",
    "think",
    "truncate",
    "shift",
    "logprobs",
    "top_logprobs",
    "_debug_render_only",
    "prompt",
    "suffix",
    "system",
    "template",
    "context",
    "raw",
    "images",
    "messages",
    "tools",
    "tool_calls",
    "tool_name",
    "tool_call_id",
]


@functools.cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((TESTS / path).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize(("path", "name"), sorted(set(POINTER.findall(PAGE))))
def test_a_test_that_is_pointed_at_exists(path: str, name: str) -> None:
    assert (TESTS / path).is_file()
    assert name.startswith("test_")
    assert name in names_in(path)


def test_every_row_says_what_is_the_case_and_points_at_a_test() -> None:
    assert len(BODY) > 100
    for row in BODY:
        assert len(row) == 3, row
        assert row[1].startswith(("same", "differs", "not supported", "see below")), row
        assert POINTER.search(row[2]), row


async def test_every_path_that_the_gateway_answers_is_on_the_page() -> None:
    gateway = Gateway(MemoryDirectory(), GatewayConfig())
    paths = gateway.paths
    await gateway.close()
    named = " ".join(row[0] for row in BODY)
    assert [path for path in sorted(paths) if f"`{path}`" not in named] == []


def test_every_option_and_native_field_is_on_the_page() -> None:
    named = " ".join(row[0] for row in BODY)
    wanted = [*REQUEST_OPTIONS, *LOAD_OPTIONS, *NATIVE_FIELDS]
    assert [name for name in wanted if f"`{name}`" not in named] == []
