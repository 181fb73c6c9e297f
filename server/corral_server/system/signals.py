"""Signal handlers of the processes.

PID 1 of a container receives only signals that it handles, so each process installs a handler before its slow imports.
"""

from __future__ import annotations

import os
import signal


def exit_on_sigterm() -> None:
    """Exit with code 0 on SIGTERM until the process installs its own handler. For the time of the imports."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))


def ignore_shutdown_signals() -> None:
    """Do nothing on SIGTERM and SIGINT.

    uvicorn replaces these handlers while it serves, and raises the signal again after it has shut down.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: None)
