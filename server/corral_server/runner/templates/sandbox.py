"""Jinja sandbox for untrusted chat templates, which come from model files and from requests.

jinja2's immutable sandbox keeps a template from Python's internals; the limits keep it from unbounded time and memory.
The number of words is counted before a template is compiled. Every loop iteration, every call, every text written and
every value made is charged to a budget. The few methods, filters and operators that can lengthen a text are measured
before they run, and a list, tuple or dict when it is made, because comparing and hashing take time in proportion to
what it contains. Templates of requests run in the worker process besides (``client_template``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce, wraps
from itertools import islice
from typing import Any

from jinja2 import Template, nodes, pass_context
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from corral_server.runner.templates.limits import (
    MAX_TEMPLATE_WORDS,
    OPERATOR_CHECKS,
    RenderBudget,
    check_characters,
    check_nesting,
    check_words,
    current_budget,
    indent,
    join,
    join_with,
    replace,
    string,
    text_size,
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


_UNCOUNTED = frozenset(
    {
        *("data", "whitespace", "variable_end", "block_end", "raw_begin", "raw_end", "linestatement_end"),
        *("comment_begin", "comment", "comment_end", "linecomment_begin", "linecomment", "linecomment_end"),
    }
)
"""Kinds of jinja2's tokens that cost nothing to compile."""


class GenerationTag(Extension):
    """``{% generation %}``, Hugging Face's mark of the assistant's part for training; it renders its body."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """The environment that Hugging Face's chat templates expect, with limits.

    https://huggingface.co/docs/transformers/chat_templating_writing
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag])
        own: dict[str, Callable[..., Any]] = {
            "replace": replace,
            "join": join,
            "indent": indent,
            "string": string,
            "__each": _each,
            "__text": _text,
            "__made": _made,
        }
        known: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in _FILTERS}
        self.filters = {name: _charged_filter(function) for name, function in (known | own).items()}
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]

    def compile_limited(self, source: str) -> Template:
        """Compile a template whose loops, texts and ``~`` are charged. Raises TemplateSyntaxError."""
        self._check_size(source)
        tree = _ChargingTransformer().visit(self.parse(source))
        return Template.from_code(self, self.compile(tree), self.make_globals(None))

    def _check_size(self, source: str) -> None:
        """Count characters and words up to their limits: compiling takes far longer than splitting into words."""
        check_characters(source)
        words = (kind for _, kind, _ in self.lex(source) if kind not in _UNCOUNTED)
        check_words(sum(1 for _ in islice(words, MAX_TEMPLATE_WORDS + 1)))

    def render(self, template: Template, variables: Mapping[str, object]) -> str:
        """Raises TemplateError, and any other exception that the template causes."""
        token = current_budget.set(RenderBudget())
        try:
            return template.render(variables)
        finally:
            current_budget.reset(token)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow a few methods of strings and none of numbers, bytes and types, such as ``(1).to_bytes(10**9)``."""
        if isinstance(obj, int | float | bytes | type) or (isinstance(obj, str) and attr not in _TEXT_METHODS):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Wrap nothing: ``str.format`` is not an allowed method."""
        return None

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # as jinja2 has it
        current_budget.get().tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __obj.__name__ in ("join", "replace"):
            for own in ("_loop_vars", "_block_vars"):  # jinja2 passes them to every call within a loop or block
                kwargs.pop(own, None)
            result: object = (join_with if __obj.__name__ == "join" else replace)(owner, *args, **kwargs)
        else:
            if isinstance(__obj, Macro):
                check_nesting([*args, *kwargs.values()])  # it can make a list of them: ``varargs``
            result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(owner, str):
            current_budget.get().spend_parts(result)
        elif isinstance(result, dict):
            check_nesting(result)
        current_budget.get().spend(result)
        return result

    def getitem(self, obj: Any, argument: Any) -> Any:
        result = super().getitem(obj, argument)
        if isinstance(argument, slice):
            current_budget.get().spend(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        OPERATOR_CHECKS[operator](left, right)
        result = super().call_binop(context, operator, left, right)
        current_budget.get().spend(result)
        return result


class _ChargingTransformer(NodeTransformer):
    """Inserts the charging filters into a parsed template."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # the name is jinja2's
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr), "the iterated value is an expression"
        node.iter = _filtered(node.iter, "__each")
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802  # the name is jinja2's
        self.generic_visit(node)
        node.nodes = [_filtered(_constant(part), "__text") for part in node.nodes if isinstance(part, nodes.Expr)]
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "__made")

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "__made")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "__made") if node.ctx == "load" else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts: list[nodes.Expr] = [_filtered(part, "__text") for part in node.nodes]
        return reduce(_concatenated, parts)


def _charged_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter whose result is charged. jinja2's attributes of the function are kept."""

    @wraps(function)
    def charged(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        current_budget.get().spend(result)
        return result

    return charged


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _constant(node: nodes.Expr) -> nodes.Expr:
    return nodes.Const(node.data, lineno=node.lineno) if isinstance(node, nodes.TemplateData) else node


def _concatenated(left: nodes.Expr, right: nodes.Expr) -> nodes.Expr:
    return _filtered(nodes.Concat([left, right], lineno=left.lineno), "__text")


@pass_context  # jinja2 never evaluates such a filter at compile time
def _each(_context: Context, items: Iterable[object]) -> Iterator[object]:
    for item in items:
        current_budget.get().tick()
        yield item


@pass_context
def _text(_context: Context, value: object) -> object:
    """Charge the length of a value that is about to be written."""
    current_budget.get().charge(text_size(value))
    return value


@pass_context
def _made(_context: Context, value: object) -> object:
    """Check and charge a list, tuple or dict that an expression makes."""
    check_nesting(value)
    return value
