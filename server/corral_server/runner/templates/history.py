"""Normalization of chat messages for chat templates.

APIs and templates name the same things differently. A template gets thinking as ``thinking`` and
``reasoning_content``, and the name of a called tool as ``name`` and ``tool_name``. Mistral's templates require call
ids of nine letters or digits; other ids are replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

Message = Mapping[str, object]

SHORT_ID_LENGTH = 9


@dataclass(frozen=True, slots=True)
class MessageStyle:
    """What a template requires: arguments as JSON text in place of objects, ids of nine characters, contents as lists
    of parts."""

    text_arguments: bool = False
    short_ids: bool = False
    typed_content: bool = False


def normalize_messages(messages: Sequence[Message], style: MessageStyle) -> list[dict[str, object]]:
    """Return normalized copies without the images, whose places are in the contents."""
    identify = _short_id if style.short_ids else _same_id
    names: dict[str, str] = {}
    unanswered_ids = Counter[str]()
    normalized = []
    for message in messages:
        copy = {name: value for name, value in message.items() if name != "images"}
        if style.typed_content and isinstance(content := message.get("content"), str):
            copy["content"] = [{"type": "text", "text": content}]
        if thinking := message.get("thinking"):
            copy["reasoning_content"] = thinking
        if calls := message.get("tool_calls"):
            copy["tool_calls"] = list(_calls(calls, style, identify=identify))
            unanswered_ids = _record_calls(copy["tool_calls"], names)
        if message.get("role") == "tool":
            _link_result(copy, names, unanswered_ids=unanswered_ids, identify=identify)
        normalized.append(copy)
    return normalized


def merge_system_messages(messages: object) -> list[dict[str, object]]:
    """Return the chat with all system texts before the first user message; empty if there is nothing to merge.

    Contents that are lists are not merged.
    """
    known = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
    if any(isinstance(message.get("content"), list) for message in known):
        return []
    system = [str(message.get("content") or "") for message in known if message.get("role") == "system"]
    others = [message for message in known if message.get("role") != "system"]
    first = next((index for index, message in enumerate(others) if message.get("role") == "user"), None)
    if not system or first is None:
        return []
    content = "\n\n".join([*system, str(others[first].get("content") or "")])
    return [*others[:first], {**others[first], "content": content}, *others[first + 1 :]]


def _calls(calls: object, style: MessageStyle, *, identify: Callable[[str], str]) -> Iterator[dict[str, object]]:
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


def _record_calls(calls: object, names: dict[str, str]) -> Counter[str]:
    """Record the names of an answer's calls; return their ids in order, with the number of calls that have it."""
    ids = Counter[str]()
    for call in calls if isinstance(calls, list) else []:
        id = str(call.get("id", ""))
        ids[id] += 1
        names[id] = str(call["function"]["name"])
    return ids


def _link_result(
    message: dict[str, object], names: Mapping[str, str], *, unanswered_ids: Counter[str], identify: _Identify
) -> None:
    """Give a tool's result the id and name of its call. A result without an id answers the first call without one."""
    call_id = str(message.get("tool_call_id") or "")
    id = identify(call_id) if call_id else next(iter(unanswered_ids), "")
    if id in unanswered_ids:
        unanswered_ids[id] -= 1
        if not unanswered_ids[id]:
            del unanswered_ids[id]
    if id:
        message["tool_call_id"] = id
    name = message.get("tool_name") or message.get("name") or names.get(id)
    if name:
        message["tool_name"] = message["name"] = name


_Identify = Callable[[str], str]


def _same_id(id: str) -> str:
    return id


def _short_id(id: str) -> str:
    """Return the id if it has the required form, else nine characters derived from it."""
    if len(id) == SHORT_ID_LENGTH and id.isascii() and id.isalnum():
        return id
    return hashlib.sha256(id.encode()).hexdigest()[:SHORT_ID_LENGTH]
