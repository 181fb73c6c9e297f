"""Threads for work on untrusted input that takes long: few, and with a lower priority than decoding.

Invariants:
- The threads are not those of ``asyncio.to_thread``, so however long the work takes, other requests find a free one.
- Decoding goes first: each thread has a lower priority (Linux has one for each thread).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import TypeVar

T = TypeVar("T")

_THREADS = 2
_LOWER_PRIORITY = 5


async def run_at_low_priority(function: Callable[[], T]) -> T:
    """Run the function in one of the threads, after the calls before it, with the context variables of the caller."""
    context = copy_context()
    return await asyncio.get_running_loop().run_in_executor(_executor(), lambda: context.run(function))


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "low-priority", initializer=_lower_priority)


def _lower_priority() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWER_PRIORITY)
