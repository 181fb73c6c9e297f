"""Ollama as a side of ``bench/engine.py``: built for this machine at the first run, and kept in the user's cache.

The release is built by ``go install`` with ``-O3 -march=native``, so that its kernels are the fastest for this CPU. It
serves the same weights, uploaded over its API, from its own folders.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.engine_sides import CONTEXT, SLOTS, Side, child
from scripts.llama_wheel import cache_dir

OLLAMA = "v0.9.6"
_FLAGS = "-O3 -march=native"
_LISTENS = re.compile(r"Listening on 127\.0\.0\.1:(\d+)")
_LOAD = 300
"""Seconds that loading may take."""


def program() -> Path:
    """The compiled command. Needs Go and a C++ compiler, and some minutes, where it is not in the cache."""
    path = cache_dir() / f"bench-ollama-{OLLAMA}" / "ollama"
    if not path.exists():
        print(f"compiling Ollama {OLLAMA} into the cache ...", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            own = {"GOBIN": folder, "CGO_ENABLED": "1", "CGO_CFLAGS": _FLAGS, "CGO_CXXFLAGS": _FLAGS}
            command = ["go", "install", f"github.com/ollama/ollama@{OLLAMA}"]
            subprocess.run(command, env={**os.environ, **own}, check=True)
            (Path(folder) / "ollama").rename(path)
    return path


@contextmanager
def ollama(weights: Path, threads: int) -> Iterator[Side]:
    with tempfile.TemporaryDirectory(prefix="corral-ollama-") as home:
        settings = {
            "HOME": home,
            "OLLAMA_HOST": "127.0.0.1:0",
            "OLLAMA_MODELS": f"{home}/models",
            "OLLAMA_NUM_PARALLEL": str(SLOTS),
            "OLLAMA_CONTEXT_LENGTH": str(CONTEXT),
            "OLLAMA_KEEP_ALIVE": "-1",
        }
        log = Path(home) / "log"
        with child([str(program()), "serve"], {**os.environ, **settings}, errors=log) as process:
            port = _port(log, process)
            _create(port, weights, threads)
            yield Side("ollama", port, "/api/generate", b'"response"', "eval_count", process.pid)


def _port(log: Path, process: subprocess.Popen[str]) -> int:
    with log.open() as lines:
        while process.poll() is None:
            if found := _LISTENS.search(lines.readline()):
                return int(found[1])
            time.sleep(0.01)
    raise SystemExit(f"Ollama did not start: {log.read_text()[-1000:]}")


def _create(port: int, weights: Path, threads: int) -> None:
    """Makes the model ``bench`` of the weights, and loads it."""
    data = weights.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _post(port, f"/api/blobs/{digest}", data)
    made = {"model": "bench", "files": {weights.name: digest}, "parameters": {"num_thread": threads}, "stream": False}
    _post(port, "/api/create", json.dumps(made).encode())
    _post(port, "/api/generate", json.dumps({"model": "bench", "stream": False}).encode())


def _post(port: int, path: str, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_LOAD)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status >= 300 or '"error"' in text:
        raise SystemExit(f"Ollama answered {path} with {answer.status}: {text}")
