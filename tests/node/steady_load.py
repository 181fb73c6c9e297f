"""Steady load on a Model: a few clients in a loop, each request on its own connection.

A client retries a refused connection, as with any Service. A request that was sent and did not get a complete response
is lost and recorded with its error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import ollama

from tests.node.release import Release
from tests.support.waiting import until

CLIENTS = 3
_TIMEOUT = 240.0
"""Seconds that a client waits for more of a response; the loss of a node takes most of them."""
_OPTIONS = ollama.Options(num_predict=6, temperature=0.0, seed=1)


@dataclass
class Load:
    """Results of the requests so far."""

    answered: int = 0
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_answers(self, count: int, timeout: float = 60) -> None:
        """Wait until ``count`` more requests have been answered."""
        wanted = self.answered + count
        until(lambda: self.answered >= wanted, timeout, what=f"{count} more answers ({self})", interval=0.05)

    def answers_continuously(self, seconds: float, *, gap: float = 10.0) -> None:
        """Wait ``seconds``, during which no gap between two responses exceeds ``gap`` seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wait_answers(1, gap)

    def assert_only_runner_errors(self) -> None:
        """Check after a runner's death: each client lost at most its current request, with an error that says why."""
        assert len(self.lost) <= CLIENTS, self
        assert all("model runner" in said or "running the model" in said for said in self.lost), self

    def assert_nothing_lost(self) -> None:
        """Check after a planned change: no request failed, and no connection was refused."""
        assert not self.lost, self
        assert not self.refused, "the Service had no endpoint that accepted connections"

    def run(self, url: str, model: str) -> None:
        while not self._stop.is_set():
            try:
                done = self._ask(url, model)
            except (ollama.ResponseError, httpx.TransportError, ConnectionError) as error:
                with self._lock:
                    self.lost.append(repr(error))
                continue
            with self._lock:
                self.answered += done == 1
                if done != 1:
                    self.lost.append(f"{done} last objects")

    def _ask(self, url: str, model: str) -> int:
        """Return the number of final objects; one is correct."""
        while True:
            with httpx.Client(timeout=_TIMEOUT) as client:
                body = {"model": model, "prompt": "Tell me a story.", "options": dict(_OPTIONS)}
                try:
                    with client.stream("POST", f"{url}/api/generate", json=body) as answer:
                        lines = [line for line in answer.iter_lines() if line]
                except httpx.ConnectError:
                    with self._lock:
                        self.refused += 1
                    continue
            if answer.status_code != 200 or '"error"' in "".join(lines):
                raise ConnectionError(f"{answer.status_code}: {lines[-1:]}")
            return sum('"done":true' in line.replace(" ", "") for line in lines)

    def end(self) -> None:
        self._stop.set()


@contextmanager
def steady_load(release: Release, model: str) -> Iterator[Load]:
    """Send requests to the Model until the end of the block, and wait for those in flight."""
    load, url = Load(), release.url
    clients = [threading.Thread(target=load.run, args=(url, model), name=f"client-{n}") for n in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield load
    finally:
        load.end()
        for client in clients:
            client.join(_TIMEOUT)
