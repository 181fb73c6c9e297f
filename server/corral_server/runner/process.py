"""What ties a runner to who started it: its socket, the pipe that tells that the parent died, and its last words."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from corral_server.runner import log

HOST, PORT = "0.0.0.0", 8080  # noqa: S104  # a pod is asked from elsewhere
BACKLOG = 2048
_MAX_LAST_WORDS = 2000
"""Characters; Kubernetes keeps 4096 bytes of a termination message."""


def listener(host: str, port: int, inherited: int | None) -> socket.socket:
    """The inherited socket, or a new one. Raises OSError with the address in its text."""
    if inherited is not None:
        return socket.socket(fileno=inherited)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error


def listen_early(environ: MutableMapping[str, str]) -> None:
    """Listens before the imports of the rest, and leaves the socket as ``CORRAL_LISTEN_FD``.

    Who asks meanwhile, a kubelet once a second, waits for the answer and is not refused. What is wrong with the address
    is left for the settings to say.
    """
    if environ.get("CORRAL_LISTEN_FD"):
        return
    with suppress(OSError, ValueError):
        port = int(environ.get("CORRAL_PORT") or PORT)
        if 0 <= port <= 65535:
            sock = listener(environ.get("CORRAL_HOST") or HOST, port, None)
            environ["CORRAL_LISTEN_FD"] = str(sock.detach())


def watch_parent(descriptor: int) -> threading.Thread:
    """Ends this process at once when the other end of the pipe is closed, whatever the event loop is doing."""

    def wait() -> None:
        with suppress(OSError):
            while os.read(descriptor, 64):
                pass
        os._exit(1)

    thread = threading.Thread(target=wait, name="parent", daemon=True)
    thread.start()
    return thread


def fail(message: str, termination_log: Path | None) -> int:
    """Says why the process ends, on stderr, in the log and in the termination log; returns the exit code."""
    words = " ".join(message.split())[:_MAX_LAST_WORDS]
    print(words, file=sys.stderr, flush=True)
    log.event("exit", level=40, code=1, reason=words)
    if termination_log is not None:
        with suppress(OSError):
            termination_log.write_text(words + "\n", "utf-8")
    return 1
