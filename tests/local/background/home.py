"""A user with an empty home, whose commands start a server in the background."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from corral_server.local.background.server import BackgroundServer
from tests.local.served import START
from tests.support.ports import free_port

CORRAL = (sys.executable, "-m", "corral_server.local")


def settings(tmp_path: Path, port: int, **more: str) -> dict[str, str]:
    """Return the environment of a user with an empty home, whose server has this port."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_", "CORRAL_", "XDG_"))}
    mine = {"HOME": str(tmp_path), "OLLAMA_HOST": f"127.0.0.1:{port}", "CORRAL_THREADS": "1"}
    return {**kept, **mine, "TEST_PYTHON": sys.executable, **more}


def corral(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*CORRAL, *arguments]
    return subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, timeout=START, check=False, input=""
    )


def pid_of(environment: Mapping[str, str]) -> int | None:
    return BackgroundServer(httpx.URL(f"http://{environment['OLLAMA_HOST']}"), environment).pid()


@contextmanager
def home(tmp_path: Path, **more: str) -> Iterator[dict[str, str]]:
    """Yield the environment of a user; a server that commands have started is ended with its models."""
    environment = settings(tmp_path, free_port(), **more)
    try:
        yield environment
    finally:
        corral(environment, "stop", "--server")
        assert pid_of(environment) is None
