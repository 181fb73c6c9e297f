"""Jinja for templates that nobody vouches for: they come out of model files, and from requests.

jinja2's immutable sandbox keeps a template from reaching Python's internals; the limits here keep it from using time
and memory without end. While a template runs, every turn of a loop, every call and every text put out is charged to a
budget, and the few methods, filters and operators that can make a text longer are measured before they run. A template
that was made to do harm can still hold one CPU for a while inside a single operation; it cannot do more than that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import reduce
from typing import Any

from jinja2 import Template, nodes, pass_context
from jinja2.exceptions import TemplateRuntimeError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

TIME_LIMIT = 2.0
"""Seconds that one rendering may take; a real one takes less than a millisecond for each message."""
SIZE_LIMIT = 16 * 1024 * 1024
"""Characters that one rendering may put out, or hold in one text."""
MAX_TEMPLATE = 1024 * 1024
"""Characters of a template."""

_FILTERS = frozenset(
    {
        "abs",
        "capitalize",
        "count",
        "d",
        "default",
        "dictsort",
        "e",
        "escape",
        "first",
        "float",
        "int",
        "items",
        "join",
        "last",
        "length",
        "list",
        "lower",
        "map",
        "max",
        "min",
        "reject",
        "rejectattr",
        "replace",
        "reverse",
        "round",
        "safe",
        "select",
        "selectattr",
        "sort",
        "string",
        "title",
        "trim",
        "unique",
        "upper",
    }
)
_TEXT_METHODS = frozenset(
    {
        "capitalize",
        "casefold",
        "count",
        "endswith",
        "find",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "islower",
        "isnumeric",
        "isspace",
        "isupper",
        "join",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
    }
)
_MAX_BITS = 256
_PART = 16
"""Characters that every part of a nested value counts for at least, so that measuring one ends soon."""


class TemplateLimit(TemplateRuntimeError):
    """A template that took too long or wrote too much."""


class _Budget:
    def __init__(self) -> None:
        self._deadline = time.monotonic() + TIME_LIMIT
        self._size = 0

    def tick(self) -> None:
        if time.monotonic() > self._deadline:
            raise TemplateLimit(f"the chat template runs longer than {TIME_LIMIT:g} s")

    def charge(self, size: int) -> None:
        self.tick()
        self._size += size
        _check(self._size)


_budget: ContextVar[_Budget] = ContextVar("template_budget")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that Hugging Face's chat templates expect, with limits."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        own = {"replace": _replace, "join": _join, "string": _string, "__each": _each, "__text": _text}
        self.filters = {name: self.filters[name] for name in _FILTERS} | own
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]

    def limited(self, source: str) -> Template:
        """Compiles a template whose loops, texts and ``~`` are charged. Raises TemplateSyntaxError."""
        if len(source) > MAX_TEMPLATE:
            raise TemplateLimit(f"the chat template has more than {MAX_TEMPLATE} characters")
        tree = _Charging().visit(self.parse(source))
        return Template.from_code(self, self.compile(tree), self.make_globals(None))

    def render(self, template: Template, variables: Mapping[str, object]) -> str:
        """Raises TemplateError, or whatever else the template makes happen."""
        token = _budget.set(_Budget())
        try:
            return template.render(variables)
        finally:
            _budget.reset(token)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in _TEXT_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format`` is not among the methods, so there is nothing to wrap."""
        return None

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # as jinja2 has it
        _budget.get().tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __obj.__name__ in ("join", "replace"):
            return (_join_with if __obj.__name__ == "join" else _replace)(owner, *args, **kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _budget.get().tick()
        _CHECKS[operator](left, right)
        return super().call_binop(context, operator, left, right)


class _Charging(NodeTransformer):
    """Puts the charging filters into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # the name is jinja2's
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr), "what is looped over is an expression"
        node.iter = _filtered(node.iter, "__each")
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_filtered(_constant(part), "__text") for part in node.nodes if isinstance(part, nodes.Expr)]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts: list[nodes.Expr] = [_filtered(part, "__text") for part in node.nodes]
        return reduce(_concatenated, parts)


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _constant(node: nodes.Expr) -> nodes.Expr:
    return nodes.Const(node.data, lineno=node.lineno) if isinstance(node, nodes.TemplateData) else node


def _concatenated(left: nodes.Expr, right: nodes.Expr) -> nodes.Expr:
    return _filtered(nodes.Concat([left, right], lineno=left.lineno), "__text")


@pass_context  # a filter that takes the context is never folded into a constant
def _each(_context: Context, items: Iterable[object]) -> Iterator[object]:
    for item in items:
        _budget.get().tick()
        yield item


@pass_context
def _text(_context: Context, value: object) -> object:
    """What is about to be written, charged by the length it will have."""
    _budget.get().charge(measure(value))
    return value


def measure(value: object) -> int:
    """About the characters of ``str(value)``, found without making it. Raises TemplateLimit beyond the limit."""
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, dict):
            rest.extend((*item.keys(), *item.values()))
        elif isinstance(item, list | tuple):
            rest.extend(item)
        total += _PART if rest else 2
        if total > SIZE_LIMIT:
            _check(total)
    return total


def _check(size: int) -> None:
    if size > SIZE_LIMIT:
        raise TemplateLimit(f"the chat template writes more than {SIZE_LIMIT} characters")


def _replace(value: object, old: object, new: object, count: int | None = None) -> str:
    measure([value, old, new])
    text, before, after = str(value), str(old), str(new)
    _check(len(text) + text.count(before) * max(0, len(after) - len(before)))
    return text.replace(before, after, -1 if count is None else count)


def _join(items: Iterable[object], d: object = "", attribute: str | None = None) -> str:
    parts = [_attribute(item, attribute) for item in items]
    measure([d, parts])
    _check(len(parts) * len(str(d)))
    return str(d).join(map(str, parts))


def _join_with(separator: str, items: Iterable[object]) -> str:
    return _join(items, separator)


def _attribute(item: object, name: str | None) -> object:
    return item if name is None else item.get(name, "") if isinstance(item, Mapping) else ""


def _string(value: object) -> str:
    measure(value)
    return str(value)


def _check_add(left: object, right: object) -> None:
    measure([left, right])


def _check_multiply(left: object, right: object) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            _check(measure(value) * max(times, 0))
    _check_bits(left, right)


def _check_power(left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MAX_BITS:
        raise TemplateLimit("the chat template computes a number that is too large")


def _check_remainder(left: object, _right: object) -> None:
    if isinstance(left, str):
        raise TemplateLimit("the chat template formats a text with %, which is not supported; use ~ to join texts")


def _check_bits(left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _MAX_BITS:
        raise TemplateLimit("the chat template computes a number that is too large")


_CHECKS: Mapping[str, Callable[[object, object], None]] = {
    "+": _check_add,
    "*": _check_multiply,
    "**": _check_power,
    "%": _check_remainder,
}
