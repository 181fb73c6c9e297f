"""How the responses API writes a generation: events with sequence numbers, or one ``response`` object."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator

from corral_server.runner.answer import Times
from corral_server.runner.delta import Delta
from corral_server.runner.delta_json import compact
from corral_server.runner.generation import Finish, Task
from corral_server.runner.responses_items import CallItem, Event, TextItem, event
from corral_server.runner.responses_object import Echo, Ended, response_object


class ResponsesWriter:
    """What always holds: one item of text is open at a time, every item has an index of its own."""

    media_type = b"text/event-stream"

    def __init__(self, echo: Echo, count: Callable[[str], int]) -> None:
        """``count`` says how many tokens a text has."""
        self._echo = echo
        self._count = count
        self._thoughts: list[str] = []
        self._id = f"resp_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._sequence = 0
        self._open: TextItem | None = None
        self._output: list[dict[str, object]] = []

    def begin(self, task: Task) -> None:
        """Nothing of the task is written."""

    def piece(self, delta: Delta) -> bytes:
        return self._written((*self._start(), *self._events(delta)))

    def end(self, finish: Finish, times: Times) -> bytes:
        events = [*self._start(), *self._close()]
        return self._written((*events, event("completed", {"response": self._finished(finish)})))

    def whole(self, delta: Delta, finish: Finish, times: Times) -> bytes:
        for _ in (*self._events(delta), *self._close()):
            """The items are put together as they are for a stream."""
        return compact(self._finished(finish)).encode()

    def _finished(self, finish: Finish) -> dict[str, object]:
        """With the tokens of the thoughts as they are read again, so not those of the tags around them."""
        thought = self._count("".join(self._thoughts)) if self._thoughts else 0
        thought = min(thought, len(finish.generated))
        ended = Ended(self._output, finish, thought)
        return response_object(self._echo, self._id, self._created, ended=ended)

    def _start(self) -> Iterator[Event]:
        if self._sequence == 0:
            response = response_object(self._echo, self._id, self._created)
            yield event("created", {"response": response})
            yield event("in_progress", {"response": response})

    def _events(self, delta: Delta) -> Iterator[Event]:
        if delta.thinking:
            self._thoughts.append(delta.thinking)
            yield from self._text(delta.thinking, reasoning=True)
        if delta.content:
            yield from self._text(delta.content, reasoning=False)
        for call in delta.tool_calls:
            yield from self._close()
            item = CallItem(len(self._output), call)
            yield from item.events()
            self._output.append(item.done())

    def _text(self, text: str, *, reasoning: bool) -> Iterator[Event]:
        if self._open is None or self._open.reasoning != reasoning:
            yield from self._close()
            self._open = TextItem(len(self._output), reasoning=reasoning)
            yield from self._open.begin()
        yield self._open.push(text)

    def _close(self) -> Iterator[Event]:
        """Ends the open item, where there is one."""
        if self._open is not None:
            yield from self._open.end()
            self._output.append(self._open.done())
            self._open = None

    def _written(self, events: Iterable[Event]) -> bytes:
        parts = []
        for kind, members in events:
            parts.append(f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":{self._sequence},{members}}}\n\n')
            self._sequence += 1
        return "".join(parts).encode()
