"""Response encoder of ``/v1/responses``: server-sent events with sequence numbers, or one ``response`` object."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator

from corral_server.runner.api.generation import ResponseEncoder
from corral_server.runner.api.openai.responses_items import FunctionCallItem, ResponsesEvent, TextItem, responses_event
from corral_server.runner.api.openai.responses_object import CompletedOutput, EchoedParameters, response_object
from corral_server.runner.api.response import RequestTimes
from corral_server.runner.chat.delta import Delta
from corral_server.runner.engine.generation import GenerationResult
from corral_server.wire.event_stream import EVENT_STREAM, server_sent_event
from corral_server.wire.json_encoding import compact_json


class ResponsesEncoder(ResponseEncoder):
    """Invariants: at most one text item is open, and each item has its own index."""

    media_type = EVENT_STREAM

    def __init__(self, parameters: EchoedParameters, count_tokens: Callable[[str], int]) -> None:
        """``count_tokens`` returns the number of tokens of a text."""
        self._parameters = parameters
        self._count_tokens = count_tokens
        self._reasoning: list[str] = []
        self._id = f"resp_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._sequence = 0
        self._open: TextItem | None = None
        self._output: list[dict[str, object]] = []

    def encode_chunk(self, delta: Delta) -> bytes:
        return self._encode((*self._start_events(), *self._delta_events(delta)))

    def encode_end(self, result: GenerationResult, times: RequestTimes) -> bytes:
        events = [*self._start_events(), *self._close_item()]
        return self._encode((*events, responses_event("completed", {"response": self._completed_response(result)})))

    def encode_whole(self, delta: Delta, result: GenerationResult, times: RequestTimes) -> bytes:
        for _ in (*self._delta_events(delta), *self._close_item()):
            pass  # the events are discarded; the generators build the items
        return compact_json(self._completed_response(result)).encode()

    def _completed_response(self, result: GenerationResult) -> dict[str, object]:
        """Build the final object. The reasoning is tokenized again to count its tokens, without the tags around it."""
        reasoning_tokens = self._count_tokens("".join(self._reasoning)) if self._reasoning else 0
        completed = CompletedOutput(self._output, result, min(reasoning_tokens, len(result.tokens)))
        return response_object(self._parameters, self._id, self._created, completed=completed)

    def _start_events(self) -> Iterator[ResponsesEvent]:
        if self._sequence == 0:
            response = response_object(self._parameters, self._id, self._created)
            yield responses_event("created", {"response": response})
            yield responses_event("in_progress", {"response": response})

    def _delta_events(self, delta: Delta) -> Iterator[ResponsesEvent]:
        if delta.thinking:
            self._reasoning.append(delta.thinking)
            yield from self._text_events(delta.thinking, reasoning=True)
        if delta.content:
            yield from self._text_events(delta.content, reasoning=False)
        for call in delta.tool_calls:
            yield from self._close_item()
            item = FunctionCallItem(len(self._output), call)
            yield from item.events()
            self._output.append(item.completed())

    def _text_events(self, text: str, *, reasoning: bool) -> Iterator[ResponsesEvent]:
        if self._open is None or self._open.reasoning != reasoning:
            yield from self._close_item()
            self._open = TextItem(len(self._output), reasoning=reasoning)
            yield from self._open.added_events()
        yield self._open.delta_event(text)

    def _close_item(self) -> Iterator[ResponsesEvent]:
        """End the open text item, if there is one."""
        if self._open is not None:
            yield from self._open.done_events()
            self._output.append(self._open.completed())
            self._open = None

    def _encode(self, events: Iterable[ResponsesEvent]) -> bytes:
        parts = []
        for kind, members in events:
            data = f'{{"type":"{kind}","sequence_number":{self._sequence},{members}}}'
            parts.append(server_sent_event(data, kind))
            self._sequence += 1
        return b"".join(parts)
