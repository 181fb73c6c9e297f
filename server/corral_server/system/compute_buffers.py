"""Compute buffers that llama.cpp plans for the header of a model, found out in a child process.

- The child gets a header that is encoded from the parsed one (``sparse_header``), and no setting and no secret.
- Its memory and time are limited, and whatever happens to it, a crash of llama.cpp included, ends with the buffers that
  it has printed before; none at all in an image without llama.cpp.

Measured on two busy cores: 0.5 s and 75 MiB, however large the model. Recurrent state is allocated for real, so for a
model with more than the limit nothing is planned for four requests, or for any.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from corral_core.contracts.model_metadata import ComputeBuffer
from corral_core.weights.dimensions import dimensions_from_header
from corral_core.weights.gguf import GGUFHeader
from corral_core.weights.sparse_header import sparse_header

log = logging.getLogger("corral.compute_buffers")

TIMEOUT: Final = 20.0
"""Seconds, after which the child is killed."""
MEMORY_LIMIT: Final = 384 << 20
"""Resident bytes, from which on the child is killed; an inspector pod has more."""
_INTERVAL: Final = 0.02
_MODULE: Final = "corral_server.runner.llama.memory_probe"
_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "CORRAL_LLAMA_BACKENDS")
"""Variables that the child gets."""
_PROC = Path("/proc")
_MAX_OUTPUT: Final = 1 << 16


def plan_compute_buffers(header: GGUFHeader) -> tuple[ComputeBuffer, ...]:
    """Return what llama.cpp plans for the header, in several load configs; empty if that cannot be found out."""
    try:
        data, size = sparse_header(header, vocabulary=dimensions_from_header(header).vocabulary)
        with _header_file() as (file, path):
            file.write(data)
            file.truncate(size)
            return _parsed(_output(file.fileno(), path))
    except (OSError, ValueError, struct.error) as error:
        log.warning("llama.cpp did not plan the compute buffers: %s", error)
        return ()


@contextlib.contextmanager
def _header_file() -> Iterator[tuple[IO[bytes], str]]:
    """Open a file in memory, a temporary one where the system has none (macOS); yield it and its path for the child."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("header"), "wb") as file:
            yield file, f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile(buffering=0) as temporary:
            yield temporary, temporary.name


def _output(descriptor: int, path: str) -> bytes:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", _MODULE, path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        env={**environment, "GGML_NO_BACKTRACE": "1"},
    ) as process:
        _watch(process)
        assert process.stdout is not None
        output = process.stdout.read(_MAX_OUTPUT)
    if process.returncode:
        log.warning("llama.cpp planned no further compute buffers: exit code %d", process.returncode)
    return output


def _watch(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of the process, and kill it at a limit. Its output fits the pipe."""
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None:
        if time.monotonic() > deadline or _resident(process.pid) > MEMORY_LIMIT:
            process.kill()
            return
        time.sleep(_INTERVAL)


def _resident(pid: int) -> int:
    """Return the resident bytes of a child that has not been waited for; 0 without ``/proc`` (macOS)."""
    if not _PROC.is_dir():
        return 0
    fields = (_PROC / str(pid) / "statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _parsed(output: bytes) -> tuple[ComputeBuffer, ...]:
    """Parse the complete lines, each with one buffer."""
    lines = output.split(b"\n")[:-1]
    return tuple(ComputeBuffer.from_json(json.loads(line)) for line in lines)
