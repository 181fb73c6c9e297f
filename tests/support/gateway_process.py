"""``corral-gateway`` as a process of its own, with everything real but the cluster: its Models come from the test.

Run as a module it is that process: the Model ``tiny``, with a runner at the port in UPSTREAM.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from unittest import mock

from corral_kube.calls import Calls
from corral_server.gateway import main as program
from corral_server.gateway.kube_directory import KubeSettings
from tests.support.gateway import MemoryDirectory, entry
from tests.support.waiting import until

START = 60.0


@dataclass
class GatewayProcess:
    """``lines`` is its log so far."""

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
    """``settings`` are environment variables."""
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
async def _in_memory(settings: KubeSettings, *, gateway_id: str, calls: Calls) -> AsyncIterator[MemoryDirectory]:
    yield MemoryDirectory.of(entry("tiny", int(os.environ["UPSTREAM"]), slots=1))


if __name__ == "__main__":
    with mock.patch.object(program, "open_directory", _in_memory):
        program.main()
