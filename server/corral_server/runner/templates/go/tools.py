"""Messages and tools as the Go structs that Ollama passes to its templates (``api/types.go``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corral_server.runner.templates.go.values import JsonList, JsonMap, Struct

_MAX_DEPTH = 8
_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}
_ORDER = ("type", "$defs", "items", "required", "properties")


def message_struct(message: Mapping[str, object]) -> Struct:
    calls = message.get("tool_calls")
    fields = {
        "Role": message.get("role", ""),
        "Content": message.get("content") or "",
        "Thinking": message.get("thinking", ""),
        "Images": message.get("images") or [],
        "ToolCalls": JsonList(tuple(_call(index, call) for index, call in enumerate(_list(calls)))),
        "ToolName": message.get("tool_name", ""),
        "ToolCallID": message.get("tool_call_id", ""),
    }
    return Struct("a message", fields, dict(message))


def tool_struct(tool: Mapping[str, object]) -> Struct:
    function = _map(tool.get("function"))
    schema = _ordered(_map(function.get("parameters")))
    properties = {str(name): _property(_map(value)) for name, value in _map(schema.get("properties")).items()}
    parameters = {
        "Type": schema.get("type", ""),
        "Required": _list(schema.get("required")),
        "Properties": JsonMap(properties),
        "Items": schema.get("items"),
        "Defs": schema.get("$defs"),
    }
    inner = {"name": function.get("name", ""), "description": function.get("description", ""), "parameters": schema}
    fields = {
        "Name": inner["name"],
        "Description": inner["description"],
        "Parameters": Struct("the parameters of a tool", parameters, schema),
    }
    outer = {"type": tool.get("type", ""), "function": inner}
    return Struct("a tool", {"Type": outer["type"], "Function": Struct("a function", fields, inner)}, outer)


def _property(schema: Mapping[str, object]) -> Struct:
    fields = {
        "Type": schema.get("type", ""),
        "Description": schema.get("description", ""),
        "Enum": _list(schema.get("enum")),
        "Items": schema.get("items"),
        "AnyOf": _list(schema.get("anyOf")),
        "ToTypeScriptType": _typescript(schema),
    }
    return Struct("a property", fields, dict(schema))


def _typescript(schema: Mapping[str, object], depth: int = 0) -> str:
    """Return the TypeScript type of a property for gpt-oss, Ollama's method ``ToTypeScriptType``."""
    if (choices := _list(schema.get("anyOf"))) and depth < _MAX_DEPTH:
        return " | ".join(_typescript(_map(choice), depth + 1) for choice in choices)
    kinds = schema.get("type")
    names = _list(kinds) or ([kinds] if isinstance(kinds, str) else [])
    return " | ".join(_TYPESCRIPT.get(str(name), "any") for name in names) or "any"


def _call(index: int, call: object) -> Struct:
    function = _map(_map(call).get("function"))
    arguments = JsonMap(_map(function.get("arguments")))
    plain = {"name": function.get("name", ""), "arguments": arguments}
    fields = {"Index": index, "Name": plain["name"], "Arguments": arguments}
    own = {"ID": _map(call).get("id", ""), "Function": Struct("a function", fields, plain)}
    return Struct("a call", own, {"function": plain})


def _ordered(schema: Mapping[str, object]) -> dict[str, object]:
    """Return the keys that Ollama knows in its order, then the others."""
    known = {key: schema[key] for key in _ORDER if key in schema}
    return {**known, **{key: value for key, value in schema.items() if key not in known}}


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []
