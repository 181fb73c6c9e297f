"""Abort handler: the reason when llama.cpp ends the process.

llama.cpp aborts on a failed assertion (a damaged file, a lost GPU) and on an uncaught C++ exception. Without a handler
the process ends by a signal that carries no reason.

Invariants:

- the handler gets the reason once, on whatever thread it happened;
- the process ends when the handler returns; nothing of llama.cpp runs after it.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from corral_server.runner.llama.library import library

_CXX_LIBRARY = "libc++abi.dylib" if sys.platform == "darwin" else "libstdc++.so.6"
_first = threading.Lock()
_registered: list[object] = []
"""References that keep the callbacks alive: llama.cpp calls them from any thread."""


def set_abort_handler(handler: Callable[[str], int]) -> None:
    """Register ``handler``, which gets the reason and returns the exit code.

    It covers ``ggml_set_abort_callback`` (ggml.h) and, with GNU's C++ library or that of macOS,
    ``std::set_terminate``.
    """

    def end(reason: str) -> None:
        _first.acquire()  # never released: other threads may fail the same assertion at this moment
        code = 1
        try:
            code = handler(reason)
        finally:
            os._exit(code)

    on_assertion = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda text: end(_assertion_reason(text)))
    on_terminate = ctypes.CFUNCTYPE(None)(lambda: end(f"llama.cpp gave up: {_exception_reason()}"))
    _registered.extend((on_assertion, on_terminate))
    library().ggml_set_abort_callback(on_assertion)
    with suppress(OSError, AttributeError):  # another C++ library: the process ends by the signal
        ctypes.CDLL(_CXX_LIBRARY)._ZSt13set_terminatePFvvE(on_terminate)


def _assertion_reason(text: bytes) -> str:
    """Return the message without the folder in which llama.cpp was built."""
    return "llama.cpp gave up: " + re.sub(r"^\S*/", "", text.decode("utf-8", "replace"))


def _exception_reason() -> str:
    """Return the type of the uncaught C++ exception."""
    current = ctypes.CDLL(_CXX_LIBRARY).__cxa_current_exception_type
    current.restype = ctypes.c_void_p
    if (info := current()) is None:
        return "it called std::terminate"
    name = ctypes.cast(info, ctypes.POINTER(ctypes.c_char_p))[1]  # a std::type_info: its vtable, its name
    return f"an exception of type {re.sub(r'^St[0-9]+', '', (name or b'unknown').decode('ascii', 'replace'))}"
