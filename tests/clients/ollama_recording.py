"""Answers of the real ``ollama serve`` to ``ollama_requests.REQUESTS``, and the file that has them.

``python -m tests.clients.ollama_recording`` records them again. Ollama runs with OLLAMA_NO_CLOUD=1, as Corral reports
it, and without a llama runner, which ``go install`` does not build.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.clients.ollama_program import VERSION, program
from tests.clients.ollama_requests import KNOWN, REQUESTS, Sent
from tests.pull.servers.ollama_server import OllamaServer, ollama_server
from tests.support.tiny_model import write_tiny_model

FILE = Path(__file__).with_name("ollama_answers.json")
_TIMEOUT = 120.0
_VARYING = (
    (re.compile(r'"(created_at|modified_at)":"[^"]*"'), r'"\1":"TIME"'),
    (re.compile(r'"request_id":"req_[0-9a-f]*"'), '"request_id":"req_X"'),
    (re.compile(r"/[^\" ]*/models/(blobs|manifests)/"), r"MODELS/\1/"),
)


class Answer(NamedTuple):
    """``media_type`` is the Content-Type; times, identifiers and paths of the server are replaced in the ``body``."""

    status: int
    media_type: str | None
    body: str


def answer(host: str, sent: Sent) -> Answer:
    """Send a request to ``address:port`` and return the answer."""
    connection = http.client.HTTPConnection(host, timeout=_TIMEOUT)
    try:
        connection.request(sent.method, sent.path, sent.body or None)
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    for pattern, fixed in _VARYING:
        body = pattern.sub(fixed, body)
    return Answer(response.status, response.getheader("content-type"), body)


def recorded() -> Mapping[str, Answer]:
    """Return the recorded answers by the text of their request."""
    stored = json.loads(FILE.read_text("utf-8"))
    assert stored["release"] == VERSION
    return {request: Answer(*found) for request, found in stored["answers"].items()}


def record(server: OllamaServer, folder: Path) -> dict[str, Answer]:
    """Create the known model on the server and return its answers to all requests."""
    weights = write_tiny_model(folder).read_bytes()
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    made = json.dumps({"model": KNOWN, "files": {"tiny.gguf": digest}, "stream": False}).encode()
    answer(server.host, Sent("POST", f"/api/blobs/{digest}", weights))
    created = answer(server.host, Sent("POST", "/api/create", made))
    assert created.status == 200, created
    return {str(sent): answer(server.host, sent) for sent in REQUESTS}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ollama-recording-") as folder:
        home = Path(folder)
        with ollama_server(program(print), home, OLLAMA_NO_CLOUD="1") as server:
            answers = record(server, home)
    lines = ",\n".join(f"  {json.dumps(request)}: {json.dumps(found)}" for request, found in answers.items())
    source = f"ollama serve of github.com/ollama/ollama@{VERSION}, recorded by tests/clients/ollama_recording.py"
    head = f'"release": {json.dumps(VERSION)},\n"source": {json.dumps(source)}'
    FILE.write_text(f'{{\n{head},\n"answers": {{\n{lines}\n}}\n}}\n', "utf-8")


if __name__ == "__main__":
    main()
