"""Syntax tree of a Go template."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Constant = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Literal:
    value: Constant


@dataclass(frozen=True, slots=True)
class Field:
    """Field access ``.A.B`` on dot or ``base``; without names the base itself. ``variable`` is ``$x`` or ``$``."""

    names: tuple[str, ...]
    variable: str = ""
    base: Pipeline | None = None


@dataclass(frozen=True, slots=True)
class FunctionCall:
    function: str
    arguments: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Commands, each of which gets the result of the previous one as its last argument."""

    commands: tuple[Operand, ...]


Operand = Literal | Field | FunctionCall | Pipeline


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """Writes a value, or declares (``:=``) or assigns (``=``) a variable."""

    pipeline: Pipeline
    variable: str = ""
    declares: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """``if``, ``with`` or ``range``. ``variables`` are declared by its pipeline."""

    kind: str
    pipeline: Pipeline
    variables: tuple[str, ...]
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class LoopControl:
    """``break`` or ``continue``."""

    kind: str


Node = Text | Action | Block | LoopControl


def field_names(nodes: tuple[Node, ...]) -> Iterator[str]:
    """Yield the names of all fields in document order."""
    for node in nodes:
        if isinstance(node, Action):
            yield from _operand_fields(node.pipeline)
        elif isinstance(node, Block):
            yield from _operand_fields(node.pipeline)
            yield from field_names(node.body)
            yield from field_names(node.otherwise)


def _operand_fields(operand: Operand) -> Iterator[str]:
    if isinstance(operand, Field):
        yield from operand.names
        if operand.base is not None:
            yield from _operand_fields(operand.base)
    elif isinstance(operand, FunctionCall):
        for argument in operand.arguments:
            yield from _operand_fields(argument)
    elif isinstance(operand, Pipeline):
        for command in operand.commands:
            yield from _operand_fields(command)


def until_response(nodes: tuple[Node, ...]) -> tuple[tuple[Node, ...], bool]:
    """Return the template up to its first ``.Response``, and whether it has one."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Block):
            if "Response" in _operand_fields(node.pipeline):
                return (*kept, Block(node.kind, node.pipeline, node.variables, ())), True
            body, cut = until_response(node.body)
            otherwise, cut_there = ((), False) if cut else until_response(node.otherwise)
            kept.append(Block(node.kind, node.pipeline, node.variables, body, otherwise))
            if cut or cut_there:
                return tuple(kept), True
        else:
            kept.append(node)
            if isinstance(node, Action) and "Response" in _operand_fields(node.pipeline):
                return tuple(kept), True
    return tuple(kept), False
