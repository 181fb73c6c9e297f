"""Interface of the runner process to its parent: listening socket, parent-death pipe, termination message."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from corral_server.runner.lifecycle import log

HOST, PORT = "0.0.0.0", 8080  # noqa: S104  # requests come from other pods
BACKLOG = 2048
_MAX_TERMINATION_MESSAGE = 2000
"""Maximum number of characters; Kubernetes keeps 4096 bytes of a termination message."""


def open_listener(host: str, port: int, inherited: int | None) -> socket.socket:
    """Return the inherited socket, or a new listening one. Raises OSError with the address in its text."""
    if inherited is not None:
        return socket.socket(fileno=inherited)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def listen_before_imports(environ: MutableMapping[str, str]) -> None:
    """Open the listening socket before the remaining imports and pass it on in ``CORRAL_LISTEN_FD``.

    Connections that arrive during the imports, such as the kubelet's probes, wait in the backlog and are not refused.
    An invalid address is ignored here; ``config.from_environment`` or ``open_listener`` reports it.
    """
    if environ.get("CORRAL_LISTEN_FD"):
        return
    with suppress(OSError, ValueError):
        port = int(environ.get("CORRAL_PORT") or PORT)
        if 0 <= port <= 65535:
            sock = open_listener(environ.get("CORRAL_HOST") or HOST, port, None)
            environ["CORRAL_LISTEN_FD"] = str(sock.detach())


def exit_with_parent(descriptor: int) -> threading.Thread:
    """Start a thread that exits this process when the other end of the pipe is closed, even if the event loop hangs."""

    def wait() -> None:
        with suppress(OSError):
            while os.read(descriptor, 64):
                pass
        os._exit(1)

    thread = threading.Thread(target=wait, name="parent", daemon=True)
    thread.start()
    return thread


def report_failure(message: str, termination_log: Path | None) -> int:
    """Report why the process exits, on stderr, in the log and as the termination message; return the exit code."""
    text = " ".join(message.split())[:_MAX_TERMINATION_MESSAGE]
    print(text, file=sys.stderr, flush=True)
    log.event("exit", level=40, code=1, reason=text)
    if termination_log is not None:
        with suppress(OSError):
            termination_log.write_text(text + "\n", "utf-8")
    return 1
