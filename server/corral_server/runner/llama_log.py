"""llama.cpp's log: the only place where it says why a model does not load and how much memory it took.

What always holds: one loading or compiling at a time collects the lines, under ``lock``; outside of it they go to the
logger, errors as errors and the rest for debugging.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("corral.runner.llama")

Lines = list[tuple[int, str]]
"""ggml's level and text; a line may come in several parts."""

_INFO, _WARNING, _ERROR = 2, 3, 4
_LEVELS = {_INFO: logging.DEBUG, _WARNING: logging.DEBUG, _ERROR: logging.ERROR}
_BUFFER_SIZE = re.compile(r"(\S+)\s+(?:KV|RS|model|compute|output|LoRA) buffer size\s*=\s*([\d.]+) MiB")

lock = threading.Lock()
_captured: Lines | None = None


def receive(level: int, text: bytes, _data: object) -> None:
    """llama.cpp's log callback."""
    if _captured is not None:
        _captured.append((level, text.decode("utf-8", "replace")))
    elif level in _LEVELS:
        log.log(_LEVELS[level], text.decode("utf-8", "replace").rstrip())


@contextmanager
def captured() -> Iterator[Lines]:
    """Collects what is logged meanwhile."""
    global _captured
    with lock:
        lines: Lines = []
        _captured = lines
        try:
            yield lines
        finally:
            _captured = None


def reason(lines: Lines) -> str:
    """The most telling message: the first error, whose successors only say that loading failed."""
    errors = [text.strip() for level, text in lines if level == _ERROR and text.strip()]
    said = errors or [text.strip() for _, text in lines[-1:]]
    return re.sub(r"^\w+: ", "", said[0]) if said else "llama.cpp gave no reason"


def buffer_sizes(lines: Lines) -> dict[str, int]:
    """Bytes by the kind of memory (``CPU_Mapped``, ``CUDA0``) as llama.cpp reported them."""
    sizes: dict[str, int] = {}
    for found in _BUFFER_SIZE.finditer("".join(text for _, text in lines)):
        sizes[found[1]] = sizes.get(found[1], 0) + int(float(found[2]) * 1024 * 1024)
    return sizes
