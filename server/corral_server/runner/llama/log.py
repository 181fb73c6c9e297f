"""llama.cpp's log: the only source of why a model does not load and of how much memory it takes.

Invariants:

- one load or compilation at a time captures the lines, under ``lock``;
- outside of a capture, errors are logged as errors and other lines as debug messages.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("corral.runner.llama")

LogLines = list[tuple[int, str]]
"""Pairs of ggml's log level and text; a line may come in several parts."""

_INFO, _WARNING, _ERROR = 2, 3, 4
"""Values of ggml's ``enum ggml_log_level``."""
_LEVELS = {_INFO: logging.DEBUG, _WARNING: logging.DEBUG, _ERROR: logging.ERROR}
_BUFFER_SIZE = re.compile(r"(\S+)\s+(?:KV|RS|model|compute|output|LoRA) buffer size\s*=\s*([\d.]+) MiB")
_LAYERS = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")

lock = threading.Lock()
_captured: LogLines | None = None


def log_callback(level: int, text: bytes, _data: object) -> None:
    """Handle a message of ``llama_log_set``."""
    if _captured is not None:
        _captured.append((level, text.decode("utf-8", "replace")))
    elif level in _LEVELS:
        log.log(_LEVELS[level], text.decode("utf-8", "replace").rstrip())


@contextmanager
def capture() -> Iterator[LogLines]:
    """Collect the messages of the block."""
    global _captured
    with lock:
        lines: LogLines = []
        _captured = lines
        try:
            yield lines
        finally:
            _captured = None


def failure_reason(lines: LogLines) -> str:
    """Return the first error, whose successors only say that loading failed; without an error, the last line."""
    errors = [text.strip() for level, text in lines if level == _ERROR and text.strip()]
    messages = errors or [text.strip() for _, text in lines[-1:]]
    return re.sub(r"^\w+: ", "", messages[0]) if messages else "llama.cpp gave no reason"


def layer_counts(lines: LogLines) -> tuple[int, int]:
    """Return how many layers are on GPUs and how many the model has, its output included; zeros without GPUs."""
    found = _LAYERS.search("".join(text for _, text in lines))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def buffer_sizes(lines: LogLines) -> dict[str, int]:
    """Return bytes by kind of memory (``CPU_Mapped``, ``CUDA0``) as llama.cpp reported them."""
    sizes: dict[str, int] = {}
    for found in _BUFFER_SIZE.finditer("".join(text for _, text in lines)):
        sizes[found[1]] = sizes.get(found[1], 0) + int(float(found[2]) * 1024 * 1024)
    return sizes


def without_copied_pages(sizes: dict[str, int]) -> dict[str, int]:
    """Return the buffers of a model without the mapped pages of weights that were copied for the CPU's kernels.

    Those buffers (``CPU_REPACK``, ``AMX``) hold the weights in another layout, and their pages of the file are released
    after the load (``mapped_pages``).
    """
    copied = sum(size for kind, size in sizes.items() if kind in ("AMX", "CPU_REPACK"))
    mapped = sizes.get("CPU_Mapped", 0)
    return sizes | {"CPU_Mapped": max(0, mapped - copied)} if mapped else sizes
