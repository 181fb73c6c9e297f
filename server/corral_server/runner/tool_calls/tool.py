"""Tools of a request, and which of them the model may or must call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Tool = Mapping[str, object]
"""``{"type": "function", "function": {"name", "description", "parameters"}}``, the form that chat templates expect."""


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """``none`` hides the tools, ``must_call`` forces a call, ``name`` limits the choice to one tool."""

    none: bool = False
    must_call: bool = False
    name: str = ""


AUTO_TOOL_CHOICE = ToolChoice()


def offered_tools(tools: Sequence[Tool], choice: ToolChoice) -> Sequence[Tool]:
    """Return the tools that the prompt describes: none, the named one, or all."""
    if choice.none:
        return ()
    return [tool for tool in tools if tool_name(tool) == choice.name] if choice.name else tools


def tool_function(tool: Tool) -> Mapping[str, object]:
    function = tool.get("function")
    return function if isinstance(function, Mapping) else {}


def tool_name(tool: Tool) -> str:
    return str(tool_function(tool).get("name", ""))


def tool_parameters(tool: Tool) -> Mapping[str, object]:
    """Return the JSON Schema of the arguments; an unrestricted object if there is none."""
    parameters = tool_function(tool).get("parameters")
    return parameters if isinstance(parameters, Mapping) and parameters else {"type": "object"}
