"""``corral serve`` as a child process, with the events of its log, for the demo and benchmarks.

If its output is a pipe, ``corral serve`` logs one JSON object per line: ``{"ts", "event", "model", ...}``. A thread
collects them, so that the child never blocks on a full pipe. Leaving the context ends the child, also after an error.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType

STOP_TIMEOUT = 30.0


class ServeExited(Exception):
    """``corral serve`` exited too early. The message is the end of its output."""


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the log. ``at`` is in Unix seconds; ``model`` is empty if the event concerns no model."""

    at: float
    name: str
    model: str
    fields: Mapping[str, object]


def parse(line: str) -> Event | None:
    """Parse a line of the log; None if it is not an event (a traceback, or a warning of a library)."""
    try:
        fields = json.loads(line)
        at = datetime.fromisoformat(fields["ts"]).timestamp()
        return Event(at, str(fields["event"]), str(fields.get("model", "")), fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Serving:
    """Context manager of one ``corral serve``: ``serving.url`` accepts requests within the block."""

    def __init__(self, files: Sequence[str], port: int = 0, *, environment: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", "corral_server.local", "serve", *files]
        self._command += ["--host", "127.0.0.1", "--port", str(port)]
        self._environment = environment
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._other: list[str] = []
        self.url = ""

    def __enter__(self) -> Serving:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self._environment
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            listening = self.wait(lambda event: event.name == "listening" and not event.model, timeout=60)
        except BaseException:  # KeyboardInterrupt as well: ``__exit__`` is not called if ``__enter__`` fails
            self.stop()
            raise
        self.url = f"http://127.0.0.1:{listening.fields['port']}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def events(self, since: float = 0.0) -> list[Event]:
        """Return the events logged at ``since`` (Unix seconds) or later, in order."""
        with self._changed:
            return [event for event in self._events if event.at >= since]

    def wait(self, wanted: Callable[[Event], bool], *, timeout: float, since: float = 0.0) -> Event:
        """Wait for the first matching event. Raises ServeExited, or TimeoutError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if found := next((event for event in self.events(since) if wanted(event)), None):
                    return found
                if not self._reader.is_alive():
                    raise ServeExited("\n".join(self._other[-20:]) or "corral serve exited without output")
                if (left := deadline - time.monotonic()) <= 0:
                    raise TimeoutError(f"corral serve did not log the expected event within {timeout:g} s")
                self._changed.wait(min(left, 0.5))

    def forever(self) -> int:
        """Wait until the child exits by itself; return its exit status."""
        return self._process.wait()

    def stop(self) -> None:
        """Send SIGTERM to the child, and SIGKILL after ``STOP_TIMEOUT`` seconds."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_TIMEOUT)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                event = parse(line)
                with self._changed:
                    if event is not None:
                        self._events.append(event)
                    elif line.strip():
                        self._other.append(line.rstrip())
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
