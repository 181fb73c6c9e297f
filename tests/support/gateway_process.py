"""Gateway process with an in-memory directory in place of the cluster.

Run as a module, it is the process: a gateway with the Model ``tiny`` and a runner at the port in UPSTREAM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from unittest import mock

from corral_kube.calls import APICallMetrics
from corral_server.gateway import main as program
from corral_server.gateway.directory.kubernetes import KubeSettings
from tests.support.gateway import MemoryDirectory, entry
from tests.support.waiting import until

START = 60.0


@dataclass
class GatewayProcess:
    """``lines`` are the log events so far."""

    process: subprocess.Popen[str]
    lines: list[dict[str, object]] = field(default_factory=list)

    @property
    def port(self) -> int:
        listening = until(lambda: self.event("listening"), START, what="listening")
        return int(str(listening["addresses"]).rpartition(" ")[2].strip("]'"))

    def event(self, name: str) -> dict[str, object] | None:
        if self.process.poll() is not None and name != "exit":
            raise RuntimeError(f"the gateway ended with {self.process.returncode}: {self.lines}")
        return next((line for line in list(self.lines) if line["event"] == name), None)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line) if line.startswith("{") else {"event": "text", "text": line})


@contextmanager
def gateway_process(upstream: int, **settings: str) -> Iterator[GatewayProcess]:
    """Start a gateway; ``settings`` are environment variables. It is killed at the end."""
    environ = {
        **os.environ,
        "OLLAMA_HOST": "127.0.0.1:0",
        "UPSTREAM": str(upstream),
        "PYTHONUNBUFFERED": "1",
        **settings,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.gateway_process"],
        env=environ,
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        gateway = GatewayProcess(process)
        reader = Thread(target=gateway.read)
        reader.start()
        try:
            yield gateway
        finally:
            process.kill()
            reader.join()


@asynccontextmanager
async def _open_memory_directory(
    settings: KubeSettings, *, gateway_id: str, calls: APICallMetrics
) -> AsyncIterator[MemoryDirectory]:
    yield MemoryDirectory.of(entry("tiny", int(os.environ["UPSTREAM"]), slots=1))


@asynccontextmanager
async def _open_no_management(
    environ: Mapping[str, str], settings: KubeSettings, *, calls: APICallMetrics
) -> AsyncIterator[None]:
    yield None


if __name__ == "__main__":
    with (
        mock.patch.object(program, "open_directory", _open_memory_directory),
        mock.patch.object(program, "open_management", _open_no_management),
    ):
        program.main()
