"""The real ``ollama serve`` with an empty home directory, and its command line."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import until

TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class OllamaServer:
    """``home`` has the key in ``.ollama`` and the models in ``models``."""

    program: Path
    host: str
    home: Path

    def run(self, *words: str) -> str:
        """Run the command and return its output. Raises AssertionError with the output if it fails."""
        done = subprocess.run(
            [str(self.program), *words],
            env=_environment(self.home, self.host),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@contextlib.contextmanager
def ollama_server(program: Path, home: Path, **settings: str) -> Iterator[OllamaServer]:
    """Run the server on a free loopback port, with more variables; its models are deleted at the end."""
    log = home / "serve.log"
    with log.open("wb") as output:
        environment = _environment(home, "127.0.0.1:0") | settings
        process = subprocess.Popen([str(program), "serve"], env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield OllamaServer(program, until(lambda: _host(process, log), TIMEOUT, what="Ollama's port"), home)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(home / "models", ignore_errors=True)


def _host(process: subprocess.Popen[bytes], log: Path) -> str | None:
    text = log.read_text(errors="replace")
    assert process.poll() is None, f"ollama serve has ended: {text}"
    found = re.search(r"Listening on (127\.0\.0\.1:\d+)", text)
    return found[1] if found else None


def _environment(home: Path, host: str) -> dict[str, str]:
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "OLLAMA_HOST": host,
        "OLLAMA_MODELS": str(home / "models"),
        "OLLAMA_NOPRUNE": "1",
    }
