"""``corral serve`` in the background: started when a command finds no server, and ended by ``corral stop --server``.

- The server runs in a session of its own and keeps running when the command has ended, as Ollama's server does.
- The file of its process id is locked while it runs: the server inherits the locked descriptor, and the kernel releases
  the lock however the server ends. A process id from the file is therefore never that of another process.
- The lock also orders commands that start at the same time: one starts the server, the others wait for its answer.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Final

import httpx

from corral_core.base.errors import CorralError
from corral_core.base.settings import bool_setting
from corral_server.local.background.files import server_files

START_TIMEOUT: Final = 120.0
"""Seconds until the server must answer: the first start after an installation compiles and reads all modules."""
_INTERVAL: Final = 0.1
_PATIENCE: Final = 1.0
"""Seconds after which a server that ends is reported as one with running requests."""
_LOG_LINES: Final = 20
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class CannotStart(CorralError):
    """The background server did not start; the text has the end of its log."""


class NotRunning(CorralError):
    """No server of the background runs at this address."""


class BackgroundServer:
    """The server at one address; ``environ`` is what it inherits."""

    def __init__(self, url: httpx.URL, environ: Mapping[str, str]) -> None:
        self._url = url
        self._environ = environ
        self._port = url.port or _DEFAULT_PORTS.get(url.scheme, 80)
        self.files = server_files(environ, self._port)

    def start_if_needed(self) -> None:
        """Start the server and wait until it answers.

        Returns at once if something listens at the address, if the address is not of this machine, or if
        CORRAL_START_SERVER is 0. Raises CannotStart and InvalidSetting.
        """
        if not self._startable() or self._listens():
            return
        deadline = time.monotonic() + START_TIMEOUT
        try:
            self.files.pid.parent.mkdir(parents=True, exist_ok=True)
            while not self._answers():
                with self._lock() as descriptor:
                    if descriptor is not None:
                        self._start(descriptor, deadline)
                        return
                if time.monotonic() > deadline:
                    raise CannotStart(
                        f"the server that another command started does not answer at {self._url}: "
                        f"read its log {self.files.log}, or end it with `corral stop --server`"
                    )
                time.sleep(_INTERVAL)
        except OSError as error:
            raise CannotStart(f"`corral serve` cannot be started in the background: {error}") from error

    def stop(self) -> None:
        """End the server and wait until it has ended; a second call while it finishes requests ends them at once.

        Raises NotRunning.
        """
        pid = self.pid()
        if pid is None:
            raise NotRunning(
                f"no server in the background at {self._url}; one in a terminal or of a service manager ends there"
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        reported_at = time.monotonic() + _PATIENCE
        while self.pid() == pid:
            if time.monotonic() > reported_at:
                print("the server finishes its requests; `corral stop --server` again ends them", file=sys.stderr)
                reported_at = float("inf")
            time.sleep(_INTERVAL)

    def pid(self) -> int | None:
        """Return the process id of the running background server, None without one."""
        with self._lock(create=False) as descriptor:
            if descriptor is not None:
                return None
        try:
            return int(self.files.pid.read_text())
        except (FileNotFoundError, ValueError):
            return None  # none, or a command starts it at this moment

    def _startable(self) -> bool:
        host = self._url.host
        try:
            address = ipaddress.ip_address(host)
            here = address.is_loopback or address.is_unspecified
        except ValueError:
            here = host == "localhost"
        plain = self._url.scheme == "http" and self._url.path in ("", "/")
        return here and plain and may_start(self._environ)

    def _listens(self) -> bool:
        try:
            socket.create_connection((self._url.host, self._port), timeout=5.0).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # the request that follows reports it
        return True

    def _answers(self) -> bool:
        """Whether a server answers, with any status: it may ask for an API key."""
        try:
            httpx.get(self._url.join("api/version"), timeout=5.0, trust_env=False)
        except httpx.TransportError:
            return False
        return True

    @contextlib.contextmanager
    def _lock(self, *, create: bool = True) -> Iterator[int | None]:
        """Yield the locked descriptor of the file of the process id, None while a server or another command has it.

        Without ``create`` a file that cannot be opened yields -1.
        """
        try:
            descriptor = os.open(self.files.pid, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        except OSError:
            if create:
                raise
            yield -1
            return
        try:
            yield descriptor if _locked(descriptor) else None
        finally:
            os.close(descriptor)  # the lock stays with a server that inherited the descriptor

    def _start(self, descriptor: int, deadline: float) -> None:
        """Start the server with the lock, and wait until it answers. Raises CannotStart."""
        self.files.rotate_log()
        os.ftruncate(descriptor, 0)
        with self.files.log.open("ab") as log:
            begin = log.tell()
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "corral_server.local", "serve", *self._address()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.files.log.parent,
                env=dict(self._environ),
                pass_fds=(descriptor,),
                start_new_session=True,
            )
        os.pwrite(descriptor, f"{child.pid}\n".encode(), 0)
        print(f"starting a server at {self._url}; `corral logs` shows its log", file=sys.stderr)
        while not self._answers():
            if child.poll() is not None:
                raise CannotStart(f"`corral serve` has ended ({_exit_text(child.returncode)}):\n{self._tail(begin)}")
            if time.monotonic() > deadline:
                child.kill()  # its runners end with it
                child.wait()
                raise CannotStart(f"`corral serve` gave no answer in {START_TIMEOUT:g} s:\n{self._tail(begin)}")
            time.sleep(_INTERVAL)

    def _address(self) -> tuple[str, ...]:
        return "--host", self._url.host, "--port", str(self._port)

    def _tail(self, begin: int) -> str:
        """Return where the log is, and its last lines from this offset on."""
        with self.files.log.open("rb") as log:
            log.seek(begin)
            lines = log.read().decode("utf-8", "replace").splitlines()[-_LOG_LINES:]
        return "\n".join([f"the end of {self.files.log}:", *(f"  {line}" for line in lines)])


def may_start(environ: Mapping[str, str]) -> bool:
    """Return whether commands start a server. Raises InvalidSetting."""
    return bool_setting(environ, "CORRAL_START_SERVER", default=True)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _exit_text(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
