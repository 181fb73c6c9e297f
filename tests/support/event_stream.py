"""Reading server-sent events of a complete response."""

from __future__ import annotations

import json
from typing import Any

import httpx


def event_data(response: httpx.Response) -> list[str]:
    """Return the data of each event."""
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    blocks = response.text.removesuffix("\n\n").split("\n\n")
    return [block[block.index("data: ") :].removeprefix("data: ") for block in blocks]


def chunks(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the chunks of a stream of OpenAI's API, which must end with [DONE]."""
    *data, done = event_data(response)
    assert done == "[DONE]"
    return [json.loads(chunk) for chunk in data]


def named_events(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream whose event types must equal the ``type`` of their data."""
    events = [json.loads(data) for data in event_data(response)]
    names = [line.removeprefix("event: ") for line in response.text.splitlines() if line.startswith("event: ")]
    assert names == [event["type"] for event in events]
    return events
