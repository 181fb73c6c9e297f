"""Jinja for templates that nobody vouches for: they come out of model files, and from requests.

jinja2's immutable sandbox keeps a template from reaching Python's internals; the limits here keep it from using time
and memory without end. While a template runs, every turn of a loop, every call and every text put out is charged to a
budget, and the few methods, filters and operators that can make a text longer are measured before they run. A template
that was made to do harm can still hold one CPU for a while inside a single operation; it cannot do more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce, wraps
from typing import Any

from jinja2 import Template, nodes, pass_context
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from corral_server.runner.template_limits import (
    MAX_TEMPLATE,
    OPERATOR_CHECKS,
    Budget,
    TemplateLimit,
    budget,
    indent,
    join,
    join_with,
    measure,
    replace,
    string,
)

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


class Generation(Extension):
    """``{% generation %}`` marks the assistant's part for training; here its body is all that matters."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that Hugging Face's chat templates expect, with limits."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
        own: dict[str, Callable[..., Any]] = {
            "replace": replace,
            "join": join,
            "indent": indent,
            "string": string,
            "__each": _each,
            "__text": _text,
        }
        known: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in _FILTERS}
        self.filters = {name: _spending(function) for name, function in (known | own).items()}
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
        token = budget.set(Budget())
        try:
            return template.render(variables)
        finally:
            budget.reset(token)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Texts have a few methods, numbers and bytes none: ``(1).to_bytes(10**9)`` would be one."""
        if isinstance(obj, int | float | bytes) or (isinstance(obj, str) and attr not in _TEXT_METHODS):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """``str.format`` is not among the methods, so there is nothing to wrap."""
        return None

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # as jinja2 has it
        budget.get().tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __obj.__name__ in ("join", "replace"):
            for own in ("_loop_vars", "_block_vars"):  # jinja2 gives them to every call inside of a loop or block
                kwargs.pop(own, None)
            result: object = (join_with if __obj.__name__ == "join" else replace)(owner, *args, **kwargs)
        else:
            result = super().call(__context, __obj, *args, **kwargs)
        budget.get().spend(result)
        return result

    def getitem(self, obj: Any, argument: Any) -> Any:
        result = super().getitem(obj, argument)
        if isinstance(argument, slice):
            budget.get().spend(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        OPERATOR_CHECKS[operator](left, right)
        result = super().call_binop(context, operator, left, right)
        budget.get().spend(result)
        return result


class _Charging(NodeTransformer):
    """Puts the charging filters into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # the name is jinja2's
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr), "what is looped over is an expression"
        node.iter = _filtered(node.iter, "__each")
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802  # the name is jinja2's
        self.generic_visit(node)
        node.nodes = [_filtered(_constant(part), "__text") for part in node.nodes if isinstance(part, nodes.Expr)]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts: list[nodes.Expr] = [_filtered(part, "__text") for part in node.nodes]
        return reduce(_concatenated, parts)


def _spending(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose result is charged; jinja2's marks on the function are kept."""

    @wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        budget.get().spend(result)
        return result

    return charged


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _constant(node: nodes.Expr) -> nodes.Expr:
    return nodes.Const(node.data, lineno=node.lineno) if isinstance(node, nodes.TemplateData) else node


def _concatenated(left: nodes.Expr, right: nodes.Expr) -> nodes.Expr:
    return _filtered(nodes.Concat([left, right], lineno=left.lineno), "__text")


@pass_context  # a filter that takes the context is never folded into a constant
def _each(_context: Context, items: Iterable[object]) -> Iterator[object]:
    for item in items:
        budget.get().tick()
        yield item


@pass_context
def _text(_context: Context, value: object) -> object:
    """What is about to be written, charged by the length it will have."""
    budget.get().charge(measure(value))
    return value
