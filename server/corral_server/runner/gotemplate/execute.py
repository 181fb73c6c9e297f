"""Runs a template's tree over values, within the limits that all chat templates have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from corral_server.runner.gotemplate.functions import call
from corral_server.runner.gotemplate.nodes import (
    Action,
    Block,
    Call,
    Field,
    Leave,
    Literal,
    Node,
    Operand,
    Pipeline,
    Text,
)
from corral_server.runner.gotemplate.tokens import Unsupported
from corral_server.runner.gotemplate.values import field, is_true, kind, written
from corral_server.runner.template_limits import Budget, measure


class _Left(Exception):
    """``break`` or ``continue`` on its way to the loop."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def execute(nodes: Sequence[Node], data: Mapping[str, object]) -> str:
    """The text. Raises Unsupported and TemplateLimit."""
    run = _Run(data)
    try:
        run.nodes(nodes, data)
    except _Left as left:
        raise Unsupported(f"{{{{ {left.kind} }}}} outside of range") from None
    return "".join(run.out)


class _Run:
    """One execution; variables are a stack, the innermost last."""

    def __init__(self, data: object) -> None:
        self.out: list[str] = []
        self._variables: list[tuple[str, object]] = [("$", data)]
        self._budget = Budget()

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
        elif isinstance(node, Leave):
            raise _Left(node.kind)
        else:
            mark = len(self._variables)
            try:
                self._block(node, dot)
            finally:
                del self._variables[mark:]

    def _action(self, node: Action, dot: object) -> None:
        value = self._evaluate(node.pipeline, dot)
        if not node.variable:
            self._budget.charge(measure(value) if not isinstance(value, str) else 0)
            self._write(written(value))
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
            except _Left as left:
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
        if isinstance(operand, Call):
            return self._call(operand, dot, ())
        return self._pipe(operand, dot)

    def _pipe(self, pipeline: Pipeline, dot: object) -> object:
        value = self._evaluate(pipeline.commands[0], dot)
        for command in pipeline.commands[1:]:
            if not isinstance(command, Call):
                raise Unsupported("a pipe into something that is no function")
            value = self._call(command, dot, (value,))
        return value

    def _call(self, node: Call, dot: object, piped: tuple[object, ...]) -> object:
        if node.function in ("and", "or"):
            return self._decided(node, dot, piped)
        arguments = [*(self._evaluate(argument, dot) for argument in node.arguments), *piped]
        for argument in arguments:
            self._budget.spend(argument)
        result = call(node.function, arguments)
        self._budget.spend(result)
        return result

    def _decided(self, node: Call, dot: object, piped: tuple[object, ...]) -> object:
        """``and`` gives the first argument that is not true, ``or`` the first that is; else the last."""
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
            value = field(value, name)
        return value

    def _variable(self, name: str) -> object:
        for found, value in reversed(self._variables):
            if found == name:
                return value
        raise Unsupported(f"the undefined variable {name}")

    def _assign(self, name: str, value: object) -> None:
        for index in range(len(self._variables) - 1, -1, -1):
            if self._variables[index][0] == name:
                self._variables[index] = (name, value)
                return
        raise Unsupported(f"the undefined variable {name}")

    def _write(self, text: str) -> None:
        self._budget.charge(len(text))
        self.out.append(text)


def _pairs(value: object) -> Sequence[tuple[object, object]]:
    """What a loop goes through: positions and items, or sorted keys and values."""
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(enumerate(value))
    raise Unsupported(f"range over {kind(value)}")
