"""Duration of one request to a model that is not loaded, and its parts up to the first token.

The client's times (request sent, first token) and three events of ``corral serve``'s log divide the duration into parts
that add up to it. All clocks are this machine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ollama

from scripts.serving import Event, Serving

STARTED, LOADING, LOADED = "started", "loading", "loaded"
"""Events of a starting runner: the process runs, loading begins, the model is loaded."""

PARTS = {
    "queue_s": "pending in the gateway's queue, until the planner starts a runner",
    "process_start_s": "starting the runner process: interpreter, imports, HTTP server",
    "model_load_s": "loading the model",
    "prefill_s": "prefill, up to the first token",
}


@dataclass(frozen=True, slots=True)
class Wake:
    """Result of one cold request. ``parts`` has the keys of PARTS, in seconds, and adds up to ``first_token_s``."""

    first_token_s: float
    parts: Mapping[str, float]
    total_s: float
    tokens: int
    tokens_per_second: float


def wake(serving: Serving, model: str, prompt: str, *, on_text: Callable[[str], None], predict: int = 64) -> Wake:
    """Send a request to a model that is not loaded; ``on_text`` receives the streamed text.

    Raises ollama.ResponseError.
    """
    client = ollama.Client(host=serving.url, timeout=300)
    sent_at, first = time.time(), 0.0
    answer = client.chat(
        model,
        [{"role": "user", "content": prompt}],
        stream=True,
        options={"temperature": 0.0, "num_predict": predict},
    )
    for chunk in answer:
        first = first or time.time()
        on_text(chunk.message.content or "")
    parts = split(sent_at, first, serving.events(sent_at))
    tokens, spent = chunk.eval_count or 0, (chunk.eval_duration or 0) / 1e9
    return Wake(first - sent_at, parts, time.time() - sent_at, tokens, tokens / spent if spent else 0.0)


def split(sent_at: float, first: float, events: list[Event]) -> dict[str, float]:
    """Divide the time from ``sent_at`` to ``first`` (Unix seconds) at the events of the log."""
    moments = [sent_at]
    for name in (STARTED, LOADING, LOADED):
        at = next((event.at for event in events if event.name == name and event.model), moments[-1])
        moments.append(min(max(at, moments[-1]), first))
    return {part: end - begin for part, begin, end in zip(PARTS, moments, [*moments[1:], first], strict=True)}


def unload(serving: Serving, model: str, *, timeout: float = 30.0) -> None:
    """Unload the model and wait until its runner has exited, so that the next request is a cold one."""
    client = ollama.Client(host=serving.url, timeout=timeout)
    since = time.time()
    client.generate(model, keep_alive=0)
    serving.wait(lambda event: event.name == "exited" and bool(event.model), timeout=timeout, since=since)
