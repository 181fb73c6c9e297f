"""The servers that ``bench/engine.py`` compares, and how requests are sent to each; Ollama is in ``ollama_side.py``.

``bench/gpu.py`` compares the first two on a GPU.

All are child processes with the same weights, threads, slots and context length. llama.cpp's server is the package
xllamacpp from PyPI, which the first run installs into its own environment in the user's cache.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from scripts.llama_wheel import cache_dir

XLLAMACPP = "2026.10.11549"
SLOTS = 16
CONTEXT = 2048
"""Tokens for each slot."""
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Side:
    """One server: where it is, its path, the names of its fields, and its process."""

    name: str
    port: int
    path: str
    text: bytes
    count: str
    pid: int

    def body(self, prompt: str, tokens: int, schema: Mapping[str, object] | None = None) -> dict[str, object]:
        if self.path == "/completion":
            held = {"json_schema": schema} if schema is not None else {}
            return {"prompt": prompt, "n_predict": tokens, "temperature": 0, "stream": True, **held}
        options = {"num_predict": tokens, "temperature": 0}
        held = {"format": schema} if schema is not None else {}
        return {"model": "bench", "prompt": prompt, "raw": True, "options": options, **held}


@dataclass(frozen=True, slots=True)
class Reply:
    """``first`` and ``end`` are seconds since the request was sent; ``tokens`` were generated."""

    first: float
    end: float
    tokens: int


async def ask(side: Side, prompt: str, tokens: int, *, schema: Mapping[str, object] | None = None) -> Reply:
    """``schema`` holds the answer to a JSON Schema."""
    body = json.dumps(side.body(prompt, tokens, schema)).encode()
    head = f"POST {side.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", side.port, limit=1 << 20)
    writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    first, last = 0.0, b""
    async for line in reader:
        if side.text in line:
            first = first or time.perf_counter() - start
            last = line
    end = time.perf_counter() - start
    writer.close()
    await writer.wait_closed()
    final = json.loads(last.removeprefix(b"data: "))
    return Reply(first, end, int(final[side.count]))


@contextmanager
def child(
    command: list[str], environment: Mapping[str, str] = os.environ, *, errors: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is a pipe; it is asked to end with the block, and killed when it does not.

    Standard error goes to the file ``errors``, or to one in the cache.
    """
    with (errors or cache_dir() / "bench-engine.log").open("a") as log:
        process = subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


@contextmanager
def runner(
    weights: Path,
    threads: int,
    *,
    slots: int = SLOTS,
    gpus: int = 0,
    projector: Path | None = None,
    settings: Mapping[str, str] = NO_SETTINGS,
) -> Iterator[Side]:
    """``gpus``: that many, with all layers on them. ``settings`` are added to the environment."""
    gpu = {"count": gpus, "offload": "full"} if gpus else {"count": 0}
    spec: dict[str, object] = {
        "source": weights.as_uri(),
        "contextLength": CONTEXT,
        "parallel": slots,
        "gpu": gpu,
        **({"projector": projector.as_uri()} if projector is not None else {}),
    }
    model = json.dumps({"name": "bench", "namespace": "default", "spec": spec})
    environment = {
        **os.environ,
        "CORRAL_MODEL": model,
        "CORRAL_HOST": "127.0.0.1",
        "CORRAL_PORT": "0",
        "CORRAL_PARENT_FD": "0",
        "CORRAL_THREADS": str(threads),
        **settings,
    }
    with child([sys.executable, "-m", "corral_server.runner"], environment) as process:
        assert process.stdout is not None
        port = 0
        for line in process.stdout:
            event = json.loads(line)
            port = event.get("port", port)
            if event["event"] == "loaded":
                yield Side("corral", port, "/api/generate", b'"response"', "eval_count", process.pid)
                return
        raise SystemExit("the runner did not load its model; see bench-engine.log in the cache")


@contextmanager
def llamacpp(
    weights: Path,
    threads: int,
    *,
    slots: int = SLOTS,
    gpu_layers: int = 0,
    projector: Path | None = None,
    python: Path | None = None,
    settings: Mapping[str, str] = NO_SETTINGS,
) -> Iterator[Side]:
    """``python`` has xllamacpp; by default that of the cache. ``settings`` are added to the environment."""
    wanted = {
        "model": str(weights),
        "projector": str(projector or ""),
        "context": CONTEXT,
        "slots": slots,
        "threads": threads,
        "gpu_layers": gpu_layers,
    }
    program = str(Path(__file__).with_name("llamacpp_server.py"))
    command = [str(python or llamacpp_python()), program, json.dumps(wanted)]
    with child(command, {**os.environ, **settings}) as process:
        assert process.stdout is not None
        port = urlsplit(process.stdout.readline().strip()).port
        if port is None:
            raise SystemExit("llama.cpp's server did not start; see bench-engine.log in the cache")
        yield Side("llama.cpp", port, "/completion", b'"content"', "tokens_predicted", process.pid)


def llamacpp_python() -> Path:
    """The interpreter of an environment that has xllamacpp; made at the first call."""
    home = cache_dir() / f"bench-xllamacpp-{XLLAMACPP}"
    python = home / "bin/python"
    if not (home / "ready").exists():
        print(f"installing xllamacpp {XLLAMACPP} into the cache ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", f"xllamacpp=={XLLAMACPP}"], check=True)
        (home / "ready").touch()
    return python
