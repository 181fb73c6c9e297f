"""Parts of local mode for tests: Models for the fake runner, and a log that can be asked what happened."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TypeVar

import uvloop

from corral_core.facts import ModelFacts
from corral_core.model import Model
from corral_core.resource import names_of, parse_model, serving_digest
from corral_server.gateway.directory import Endpoint
from corral_server.local.config import RunnerConfig
from corral_server.local.files import Listed
from corral_server.local.logs import EventLog
from corral_server.local.weights import Weights

T = TypeVar("T")

FAKE = (sys.executable, str(Path(__file__).parent.parent / "support/fake_runner.py"))
RUNNER = RunnerConfig(command=FAKE, drain_timeout=20, kill_grace=1, first_backoff=0.05, longest_backoff=0.4)


def run(test: Coroutine[object, object, T]) -> T:
    """Runs a test's coroutine on the event loop that ``corral serve`` uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(test)


def model(name: str = "m", *, spec: dict[str, object] | None = None, **behaviour: object) -> Model:
    """A Model that the fake runner serves with this behaviour."""
    fields = {"source": "file:///weights.gguf", "system": json.dumps(behaviour)} | (spec or {})
    return parse_model({"metadata": {"name": name}, "spec": fields})


def listed(found: Model, *, modified: float = 1.0, facts: ModelFacts | None = None) -> Listed:
    return Listed(found, names_of(found), serving_digest(found), modified, Weights(facts))


class Heard(EventLog):
    """A log that remembers its events."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        super().__init__(self._text, human=False, verbose=True)

    def events(self, name: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self._text.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]


async def ask(endpoint: Endpoint, prompt: str) -> dict[str, object]:
    """One request straight to a runner. Raises ConnectionError or ValueError when there is no answer."""
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        body = json.dumps({"prompt": prompt}).encode()
        writer.write(f"POST /api/generate HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    answer = json.loads(content)
    assert isinstance(answer, dict)
    return answer | {"status": int(head.split()[1])}


def document(name: str, **spec: object) -> str:
    fields = {"source": "file:///nowhere.gguf"} | spec
    lines = "\n".join(f"  {key}: {value}" for key, value in fields.items())
    return f"apiVersion: corral.dev/v1alpha1\nkind: Model\nmetadata:\n  name: {name}\nspec:\n{lines}\n"


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
