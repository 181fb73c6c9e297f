"""The messages of a chat as chat templates expect them: APIs and templates name the same things differently.

A template gets thinking as ``thinking`` and ``reasoning_content``, the name of a called tool as ``name`` and
``tool_name``; where it wants ids of nine letters or digits, the ids are replaced by such.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Message = Mapping[str, object]

SHORT_ID = 9


@dataclass(frozen=True, slots=True)
class Style:
    """What a template wants: arguments as JSON text and not as objects, ids of nine characters."""

    text_arguments: bool = False
    short_ids: bool = False


def as_templates_expect(messages: Sequence[Message], style: Style) -> list[dict[str, object]]:
    """Copies of the messages; those without thinking and tools come out as they are."""
    identify = _short if style.short_ids else _same
    names: dict[str, str] = {}
    waiting: list[str] = []
    done = []
    for message in messages:
        copy = dict(message)
        if thinking := message.get("thinking"):
            copy["reasoning_content"] = thinking
        if calls := message.get("tool_calls"):
            copy["tool_calls"] = list(_calls(calls, style, identify=identify))
            waiting = _noted(copy["tool_calls"], names)
        if message.get("role") == "tool":
            _answer(copy, names, waiting=waiting, identify=identify)
        done.append(copy)
    return done


def without_system(messages: object) -> list[dict[str, object]]:
    """The chat with its system texts before the first of the user's; empty when there is nothing to be moved."""
    known = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    system = [str(message.get("content") or "") for message in known if message.get("role") == "system"]
    others = [message for message in known if message.get("role") != "system"]
    first = next((index for index, message in enumerate(others) if message.get("role") == "user"), None)
    if not system or first is None:
        return []
    content = "\n\n".join([*system, str(others[first].get("content") or "")])
    return [*others[:first], {**others[first], "content": content}, *others[first + 1 :]]


def _calls(calls: object, style: Style, *, identify: Callable[[str], str]) -> Iterator[dict[str, object]]:
    for index, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function")
        if not isinstance(function, Mapping):
            continue
        arguments = function.get("arguments", {})
        if style.text_arguments and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        id = str(call.get("id") or (f"call{index}" if style.short_ids else ""))
        function = {"name": function.get("name", ""), "arguments": arguments}
        yield {"type": "function", **({"id": identify(id)} if id else {}), "function": function}


def _noted(calls: object, names: dict[str, str]) -> list[str]:
    """The ids of an answer's calls, in order; their names are kept."""
    ids = []
    for call in calls if isinstance(calls, list) else []:
        id = str(call.get("id", ""))
        ids.append(id)
        names[id] = str(call["function"]["name"])
    return ids


def _answer(message: dict[str, object], names: Mapping[str, str], *, waiting: list[str], identify: _Identify) -> None:
    """A tool's result says whose it is; one without an id answers the first call that has none yet."""
    given = str(message.get("tool_call_id") or "")
    id = identify(given) if given else (waiting[0] if waiting else "")
    if id in waiting:
        waiting.remove(id)
    if id:
        message["tool_call_id"] = id
    name = message.get("tool_name") or message.get("name") or names.get(id)
    if name:
        message["tool_name"] = message["name"] = name


_Identify = Callable[[str], str]


def _same(id: str) -> str:
    return id


def _short(id: str) -> str:
    """The id itself when it is fit, else nine characters that are always the same for it."""
    if len(id) == SHORT_ID and id.isascii() and id.isalnum():
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:SHORT_ID]
