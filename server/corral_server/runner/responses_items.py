"""One item of a response's output, and the events that it is streamed with."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring

from corral_server.runner.delta import ToolCall
from corral_server.runner.delta_json import arguments_text, compact

Event = tuple[str, str]
"""The type of an event, and its members as JSON without the braces."""


def event(kind: str, members: Mapping[str, object]) -> Event:
    return f"response.{kind}", compact(members)[1:-1]


class TextItem:
    """Reasoning or a message, while its text comes."""

    def __init__(self, index: int, *, reasoning: bool) -> None:
        self.reasoning = reasoning
        self._index = index
        self._id = f"{'rs' if reasoning else 'msg'}_{secrets.token_hex(12)}"
        self._texts: list[str] = []
        place = {"item_id": self._id, "output_index": index, "summary_index" if reasoning else "content_index": 0}
        self._place = place
        self._kind = "reasoning_summary" if reasoning else "output"
        self._part = "reasoning_summary_part" if reasoning else "content_part"
        self._head = f"{compact(place)[1:-1]},"
        self._logprobs = "" if reasoning else ',"logprobs":[]'

    def begin(self) -> Iterator[Event]:
        yield event("output_item.added", {"output_index": self._index, "item": self._item("in_progress")})
        yield event(f"{self._part}.added", {**self._place, "part": self._content("")})

    def push(self, text: str) -> Event:
        self._texts.append(text)
        return f"response.{self._kind}_text.delta", f'{self._head}"delta":{encode_basestring(text)}{self._logprobs}'

    def end(self) -> Iterator[Event]:
        text = "".join(self._texts)
        more: dict[str, object] = {} if self.reasoning else {"logprobs": []}
        yield event(f"{self._kind}_text.done", {**self._place, "text": text, **more})
        yield event(f"{self._part}.done", {**self._place, "part": self._content(text)})
        yield event("output_item.done", {"output_index": self._index, "item": self.done()})

    def done(self) -> dict[str, object]:
        return self._item("completed", self._content("".join(self._texts)))

    def _item(self, status: str, *parts: dict[str, object]) -> dict[str, object]:
        if self.reasoning:
            return {"id": self._id, "type": "reasoning", "status": status, "summary": list(parts)}
        members = {"id": self._id, "type": "message", "status": status, "role": "assistant"}
        return {**members, "content": list(parts)}

    def _content(self, text: str) -> dict[str, object]:
        if self.reasoning:
            return {"type": "summary_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


class CallItem:
    """A call, which is there at once."""

    def __init__(self, index: int, call: ToolCall) -> None:
        self._index = index
        self._call = call
        self._id = f"fc_{secrets.token_hex(12)}"
        self._arguments = arguments_text(call)

    def events(self) -> Iterator[Event]:
        place = {"item_id": self._id, "output_index": self._index}
        yield event("output_item.added", {"output_index": self._index, "item": self._item("in_progress", "")})
        yield event("function_call_arguments.delta", {**place, "delta": self._arguments})
        done = {**place, "name": self._call.name, "arguments": self._arguments}
        yield event("function_call_arguments.done", done)
        yield event("output_item.done", {"output_index": self._index, "item": self.done()})

    def done(self) -> dict[str, object]:
        return self._item("completed", self._arguments)

    def _item(self, status: str, arguments: str) -> dict[str, object]:
        names = {"call_id": self._call.id, "name": self._call.name}
        return {"id": self._id, "type": "function_call", "status": status, "arguments": arguments, **names}
