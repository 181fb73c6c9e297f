"""Output items of OpenAI's responses API and the events that stream them.

Source: OpenAI's API reference, "Responses", and Ollama's ``openai/responses.go``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring

from corral_server.runner.api.encoding import arguments_json
from corral_server.runner.chat.delta import ToolCall
from corral_server.wire.json_encoding import compact_json

ResponsesEvent = tuple[str, str]
"""Type of an event, and its members as JSON without the enclosing braces."""


def responses_event(kind: str, members: Mapping[str, object]) -> ResponsesEvent:
    return f"response.{kind}", compact_json(members)[1:-1]


class TextItem:
    """A reasoning or message item whose text is streamed."""

    def __init__(self, index: int, *, reasoning: bool) -> None:
        self.reasoning = reasoning
        self._index = index
        self._id = f"{'rs' if reasoning else 'msg'}_{secrets.token_hex(12)}"
        self._texts: list[str] = []
        position = {"item_id": self._id, "output_index": index, "summary_index" if reasoning else "content_index": 0}
        self._position = position
        self._kind = "reasoning_summary" if reasoning else "output"
        self._part = "reasoning_summary_part" if reasoning else "content_part"
        self._head = f"{compact_json(position)[1:-1]},"
        self._logprobs = "" if reasoning else ',"logprobs":[]'

    def added_events(self) -> Iterator[ResponsesEvent]:
        yield responses_event("output_item.added", {"output_index": self._index, "item": self._item("in_progress")})
        yield responses_event(f"{self._part}.added", {**self._position, "part": self._content("")})

    def delta_event(self, text: str) -> ResponsesEvent:
        self._texts.append(text)
        return f"response.{self._kind}_text.delta", f'{self._head}"delta":{encode_basestring(text)}{self._logprobs}'

    def done_events(self) -> Iterator[ResponsesEvent]:
        text = "".join(self._texts)
        more: dict[str, object] = {} if self.reasoning else {"logprobs": []}
        yield responses_event(f"{self._kind}_text.done", {**self._position, "text": text, **more})
        yield responses_event(f"{self._part}.done", {**self._position, "part": self._content(text)})
        yield responses_event("output_item.done", {"output_index": self._index, "item": self.completed()})

    def completed(self) -> dict[str, object]:
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


class FunctionCallItem:
    """A function call item. Its arguments are complete when it is created."""

    def __init__(self, index: int, call: ToolCall) -> None:
        self._index = index
        self._call = call
        self._id = f"fc_{secrets.token_hex(12)}"
        self._arguments = arguments_json(call)

    def events(self) -> Iterator[ResponsesEvent]:
        position = {"item_id": self._id, "output_index": self._index}
        yield responses_event("output_item.added", {"output_index": self._index, "item": self._item("in_progress", "")})
        yield responses_event("function_call_arguments.delta", {**position, "delta": self._arguments})
        done = {**position, "name": self._call.name, "arguments": self._arguments}
        yield responses_event("function_call_arguments.done", done)
        yield responses_event("output_item.done", {"output_index": self._index, "item": self.completed()})

    def completed(self) -> dict[str, object]:
        return self._item("completed", self._arguments)

    def _item(self, status: str, arguments: str) -> dict[str, object]:
        names = {"call_id": self._call.id, "name": self._call.name}
        return {"id": self._id, "type": "function_call", "status": status, "arguments": arguments, **names}
