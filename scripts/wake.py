"""One request to a cold model, timed: where the seconds until its first token went.

The client's own two moments (asked, first token) and three lines of ``corral serve``'s log cut the time into parts that
add up to the whole. All clocks are this machine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ollama

from scripts.serving import Event, Serving

STARTED, LOADING, LOADED = "started", "loading", "loaded"
"""The log's events of a runner's way up: its process is there, it begins to load, it can answer."""

PARTS = {
    "queue_s": "waiting in the gateway's queue until the planner starts a runner",
    "process_start_s": "the runner's process: interpreter, imports, HTTP up",
    "model_load_s": "loading the model",
    "prefill_s": "reading the prompt, up to the first token",
}


@dataclass(frozen=True, slots=True)
class Wake:
    """One cold request. ``parts`` has PARTS' keys, in seconds; they add up to ``first_token_s``."""

    first_token_s: float
    parts: Mapping[str, float]
    total_s: float
    tokens: int
    tokens_per_second: float


def wake(serving: Serving, model: str, prompt: str, *, told: Callable[[str], None], predict: int = 64) -> Wake:
    """Asks a cold model; ``told`` gets the answer's pieces as they come. Raises ollama.ResponseError."""
    client = ollama.Client(host=serving.url, timeout=300)
    asked, first = time.time(), 0.0
    answer = client.chat(
        model,
        [{"role": "user", "content": prompt}],
        stream=True,
        options={"temperature": 0.0, "num_predict": predict},
    )
    for chunk in answer:
        first = first or time.time()
        told(chunk.message.content or "")
    parts = split(asked, first, serving.events(asked))
    tokens, spent = chunk.eval_count or 0, (chunk.eval_duration or 0) / 1e9
    return Wake(first - asked, parts, time.time() - asked, tokens, tokens / spent if spent else 0.0)


def split(asked: float, first: float, events: list[Event]) -> dict[str, float]:
    """Cuts the time from ``asked`` to ``first`` (Unix seconds) where the log says each part ended."""
    moments = [asked]
    for name in (STARTED, LOADING, LOADED):
        at = next((event.at for event in events if event.name == name and event.model), moments[-1])
        moments.append(min(max(at, moments[-1]), first))
    return {part: end - begin for part, begin, end in zip(PARTS, moments, [*moments[1:], first], strict=True)}


def unload(serving: Serving, model: str, *, timeout: float = 30.0) -> None:
    """Sends the model to zero and waits until its runner is gone, so that the next request is a cold one."""
    client = ollama.Client(host=serving.url, timeout=timeout)
    since = time.time()
    client.generate(model, keep_alive=0)
    serving.wait(lambda event: event.name == "exited" and bool(event.model), timeout=timeout, since=since)
