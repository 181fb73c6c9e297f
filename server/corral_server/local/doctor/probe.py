"""What the child process of ``corral doctor`` has found out about llama.cpp and the GPUs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from corral_core.base.json_fields import JsonObject

COMMAND: Final = (sys.executable, "-P", "-m", "corral_server.local.doctor.llama_probe")
TIMEOUT: Final = 120.0
"""Seconds: drivers of several GPUs can take long to start."""


@dataclass(frozen=True, slots=True)
class Probe:
    """``llama`` and ``nvml`` are what the child printed; ``problem`` is why something of it is missing, or empty."""

    llama: JsonObject = field(default_factory=dict)
    nvml: JsonObject = field(default_factory=dict)
    problem: str = ""


def run_probe(environ: Mapping[str, str], command: Sequence[str] = COMMAND, *, timeout: float = TIMEOUT) -> Probe:
    """Run the child process. Nothing that it does makes this call fail."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=dict(environ),
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(problem=f"it gave no answer in {timeout:g} s")
    except OSError as error:
        return Probe(problem=str(error))
    facts: dict[str, JsonObject] = {}
    for line in done.stdout.splitlines():
        try:
            facts.update(json.loads(line))
        except (ValueError, TypeError):
            continue  # a line of a driver
    problem = _end_text(done) if done.returncode else ""
    return Probe(facts.get("llama", {}), facts.get("nvml", {}), problem)


def _end_text(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"killed by {signal.Signals(-done.returncode).name}"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"exit status {done.returncode}"
