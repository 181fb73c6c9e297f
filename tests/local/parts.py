"""Parts of local mode for tests: Models for the fake runner, and a log that records its events."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import Model
from corral_core.model.resource import client_names, parse_model, runner_spec_digest
from corral_server.gateway.directory.directory import Endpoint
from corral_server.local.config import RunnerProcessConfig
from corral_server.local.event_log import EventLog
from corral_server.local.files import ListedModel
from corral_server.local.metadata import Weights

FAKE = (sys.executable, str(Path(__file__).parent.parent / "support/fake_runner.py"))
RUNNER = RunnerProcessConfig(command=FAKE, drain_timeout=20, kill_grace=1, initial_backoff=0.05, max_backoff=0.4)


def model(name: str = "m", *, spec: dict[str, object] | None = None, **behaviour: object) -> Model:
    """Return a Model that the fake runner serves with this behaviour."""
    fields = {"source": "file:///weights.gguf", "system": json.dumps(behaviour)} | (spec or {})
    return parse_model({"metadata": {"name": name}, "spec": fields})


def listed(found: Model, *, modified: float = 1.0, metadata: ModelMetadata | None = None) -> ListedModel:
    return ListedModel(found, client_names(found), runner_spec_digest(found), modified, Weights(metadata))


class RecordedLog(EventLog):
    """A log that records its events."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        super().__init__(self._text, human=False, verbose=True)

    def events(self, name: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in self._text.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]


async def ask(endpoint: Endpoint, prompt: str) -> dict[str, object]:
    """Send one request to a runner. Raises ConnectionError or ValueError without a response."""
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
    """Return whether the process runs; a zombie counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
