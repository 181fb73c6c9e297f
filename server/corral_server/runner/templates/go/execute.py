"""Executor of a parsed Go template, within the limits of all chat templates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from corral_server.runner.templates.go.functions import call
from corral_server.runner.templates.go.nodes import (
    Action,
    Block,
    Field,
    FunctionCall,
    Literal,
    LoopControl,
    Node,
    Operand,
    Pipeline,
    Text,
)
from corral_server.runner.templates.go.tokens import UnsupportedTemplate
from corral_server.runner.templates.go.values import format_value, get_field, is_true, type_name
from corral_server.runner.templates.limits import RenderBudget, text_size

_WRITERS = frozenset({"print", "println", "printf", "json"})
"""Functions that make a text of their arguments, which are measured before."""


class _LoopExit(Exception):
    """``break`` or ``continue``, raised up to the loop."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def execute(nodes: Sequence[Node], data: Mapping[str, object], budget: RenderBudget | None = None) -> str:
    """Return the output. Executions of one rendering share a budget. Raises UnsupportedTemplate and TemplateLimit."""
    run = _Execution(data, budget or RenderBudget())
    try:
        run.nodes(nodes, data)
    except _LoopExit as left:
        raise UnsupportedTemplate(f"{{{{ {left.kind} }}}} outside of range") from None
    return "".join(run.out)


class _Execution:
    """State of one execution. Variables are a stack with the innermost last."""

    def __init__(self, data: object, budget: RenderBudget) -> None:
        self.out: list[str] = []
        self._variables: list[tuple[str, object]] = [("$", data)]
        self._budget = budget

    def nodes(self, nodes: Iterable[Node], dot: object) -> None:
        mark = len(self._variables)
        try:
            for node in nodes:
                self._node(node, dot)
        finally:
            del self._variables[mark:]

    def _node(self, node: Node, dot: object) -> None:
        self._budget.tick()
        if isinstance(node, Text):
            self._write(node.text)
        elif isinstance(node, Action):
            self._action(node, dot)
        elif isinstance(node, LoopControl):
            raise _LoopExit(node.kind)
        else:
            mark = len(self._variables)
            try:
                self._block(node, dot)
            finally:
                del self._variables[mark:]

    def _action(self, node: Action, dot: object) -> None:
        value = self._evaluate(node.pipeline, dot)
        if not node.variable:
            self._budget.charge(text_size(value) if not isinstance(value, str) else 0)
            self._write(format_value(value))
        elif node.declares:
            self._variables.append((node.variable, value))
        else:
            self._assign(node.variable, value)

    def _block(self, node: Block, dot: object) -> None:
        value = self._evaluate(node.pipeline, dot)
        if node.kind == "range":
            self._range(node, value, dot)
            return
        if node.variables:
            self._variables.append((node.variables[-1], value))
        if is_true(value):
            self.nodes(node.body, value if node.kind == "with" else dot)
        else:
            self.nodes(node.otherwise, dot)

    def _range(self, node: Block, value: object, dot: object) -> None:
        pairs = _pairs(value)
        if not pairs:
            self.nodes(node.otherwise, dot)
        for key, item in pairs:
            mark = len(self._variables)
            names = node.variables
            self._variables += zip(names, (key, item) if len(names) == 2 else (item,), strict=False)
            try:
                self.nodes(node.body, item)
            except _LoopExit as left:
                if left.kind == "break":
                    return
            finally:
                del self._variables[mark:]

    def _evaluate(self, operand: Operand, dot: object) -> object:
        self._budget.tick()
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Field):
            return self._field(operand, dot)
        if isinstance(operand, FunctionCall):
            return self._call(operand, dot, ())
        return self._pipe(operand, dot)

    def _pipe(self, pipeline: Pipeline, dot: object) -> object:
        value = self._evaluate(pipeline.commands[0], dot)
        for command in pipeline.commands[1:]:
            if not isinstance(command, FunctionCall):
                raise UnsupportedTemplate("a pipe into an operand that is not a function")
            value = self._call(command, dot, (value,))
        return value

    def _call(self, node: FunctionCall, dot: object, piped: tuple[object, ...]) -> object:
        if node.function in ("and", "or"):
            return self._short_circuit(node, dot, piped)
        arguments = [*(self._evaluate(argument, dot) for argument in node.arguments), *piped]
        if node.function in _WRITERS:
            text_size(arguments)
        result = call(node.function, arguments)
        self._budget.spend(result)
        return result

    def _short_circuit(self, node: FunctionCall, dot: object, piped: tuple[object, ...]) -> object:
        """Evaluate ``and`` or ``or``.

        ``and`` returns its first false argument, ``or`` its first true one; otherwise the last.
        """
        value: object = None
        for argument in node.arguments:
            value = self._evaluate(argument, dot)
            if is_true(value) == (node.function == "or"):
                return value
        return piped[0] if piped else value

    def _field(self, node: Field, dot: object) -> object:
        if node.base is not None:
            value = self._evaluate(node.base, dot)
        else:
            value = self._variable(node.variable) if node.variable else dot
        for name in node.names:
            value = get_field(value, name)
        return value

    def _variable(self, name: str) -> object:
        for found, value in reversed(self._variables):
            if found == name:
                return value
        raise UnsupportedTemplate(f"the undefined variable {name}")

    def _assign(self, name: str, value: object) -> None:
        for index in range(len(self._variables) - 1, -1, -1):
            if self._variables[index][0] == name:
                self._variables[index] = (name, value)
                return
        raise UnsupportedTemplate(f"the undefined variable {name}")

    def _write(self, text: str) -> None:
        self._budget.charge(len(text))
        self.out.append(text)


def _pairs(value: object) -> Sequence[tuple[object, object]]:
    """Return the pairs that a loop iterates over: indexes and items, or sorted keys and values."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(enumerate(value))
    raise UnsupportedTemplate(f"range over {type_name(value)}")
