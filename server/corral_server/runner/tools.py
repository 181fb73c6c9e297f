"""Tools as a request describes them, and which of them the model may or must call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corral_server.runner.requests import Fields
from corral_server.wire.errors import ApiError

Tool = Mapping[str, object]
"""``{"type": "function", "function": {"name", "description", "parameters"}}``, as chat templates take it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """``none`` hides the tools, ``must_call`` makes the model call one, ``name`` narrows them to one."""

    none: bool = False
    must_call: bool = False
    name: str = ""


AUTO = Choice()


def allowed(tools: Sequence[Tool], choice: Choice) -> Sequence[Tool]:
    """What the model is told of: nothing, the named one, or all."""
    if choice.none:
        return ()
    return [tool for tool in tools if name_of(tool) == choice.name] if choice.name else tools


def function_of(tool: Tool) -> Mapping[str, object]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else {}


def name_of(tool: Tool) -> str:
    return str(function_of(tool).get("name", ""))


def parameters_of(tool: Tool) -> Mapping[str, object]:
    """The JSON Schema of the arguments; one that allows anything when there is none."""
    parameters = function_of(tool).get("parameters")
    return parameters if isinstance(parameters, Mapping) and parameters else {"type": "object"}


def tools_of(fields: Fields) -> tuple[Tool, ...]:
    """The ``tools`` of the native and OpenAI's API. Raises ApiError 400 with Go's text for a wrong type."""
    for tool in fields.objects("tools", "Tool"):
        tool.text("type")
        function = tool.sub("function", "ToolFunction")
        function.text("name")
        function.text("description")
        function.mapping("parameters")
    return tuple(tool for tool in fields.items("tools") if isinstance(tool, dict))


def choice_of(value: object, tools: Sequence[Tool]) -> Choice:
    """OpenAI's ``tool_choice``: a word, or an object that names a function. Raises ApiError 400."""
    if value is None or value == "auto" or not tools:
        return AUTO
    if value == "none":
        return Choice(none=True)
    if value == "required":
        return Choice(must_call=True)
    name = _named(value)
    if name and any(name_of(tool) == name for tool in tools):
        return Choice(must_call=True, name=name)
    raise ApiError(400, 'invalid tool_choice (must be "none", "auto", "required", or name one of the tools)')


def _named(value: object) -> str:
    """``{"type": "function", "function": {"name"}}`` in chats, ``{"type": "function", "name"}`` in responses."""
    if not isinstance(value, Mapping):
        return ""
    function = value.get("function", value)
    return str(function.get("name", "")) if isinstance(function, Mapping) else ""
