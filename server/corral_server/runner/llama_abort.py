"""What llama.cpp says when it gives the process up: an assertion that a damaged file or a lost GPU breaks, or a C++
exception that nobody catches. Part of the adapter ``llama.py``.

It would end the process by a signal, which tells nobody why. What always holds: who asked for the reason gets it once,
on whatever thread it happened, and the process ends when it returns; nothing of llama.cpp runs after it.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress

from corral_server.runner.llama_library import library

_first = threading.Lock()
_registered: list[object] = []
"""Kept for ever: llama.cpp calls them from any thread."""


def on_abort(say: Callable[[str], int]) -> None:
    """``say`` gets the reason in words and returns the exit code."""

    def end(reason: str) -> None:
        _first.acquire()  # for good: other threads may break the same assertion at this moment
        code = 1
        try:
            code = say(reason)
        finally:
            os._exit(code)

    told = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(lambda text: end(_words(text)))
    thrown = ctypes.CFUNCTYPE(None)(lambda: end(f"llama.cpp gave up: {_exception()}"))
    _registered.extend((told, thrown))
    library().ggml_set_abort_callback(told)
    with suppress(OSError, AttributeError):  # another C++ library than GNU's: the signal it is
        ctypes.CDLL("libstdc++.so.6")._ZSt13set_terminatePFvvE(thrown)


def _words(text: bytes) -> str:
    """Without the folder in which llama.cpp was built."""
    return "llama.cpp gave up: " + re.sub(r"^\S*/", "", text.decode("utf-8", "replace"))


def _exception() -> str:
    """The kind of the C++ exception that nobody caught."""
    current = ctypes.CDLL("libstdc++.so.6").__cxa_current_exception_type
    current.restype = ctypes.c_void_p
    if (info := current()) is None:
        return "it called std::terminate"
    name = ctypes.cast(info, ctypes.POINTER(ctypes.c_char_p))[1]  # a type_info: its table, its name
    return f"an exception of type {re.sub(r'^St[0-9]+', '', (name or b'unknown').decode('ascii', 'replace'))}"
