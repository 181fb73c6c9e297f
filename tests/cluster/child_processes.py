"""Child processes that never outlive the tests.

Each is started through ``setpriv --pdeathsig``: the kernel kills it when the thread that started it ends, for whatever
reason. Start them from a thread that lives as long as they must. Each writes its output to its own log file.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_TAIL = 60


class Child:
    """A process with a name and a log file. Its owner must call ``stop`` or ``kill``."""

    def __init__(
        self, name: str, command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)],
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_for_program()

    def _wait_for_program(self) -> None:
        """Wait until setpriv has set the death signal and executed the program.

        The name in ``comm`` does not tell that: it may still be the parent's when Popen returns.
        """
        setpriv, program = Path(shutil.which("setpriv") or "").resolve(), Path(f"/proc/{self.pid}/exe")
        with suppress(FileNotFoundError):  # the process has ended already
            while self.alive and program.readlink() == setpriv:
                time.sleep(0.001)

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_status(self) -> int | None:
        """Return the exit status: None while the process runs, the negative number of the signal that ended it."""
        return self._process.poll()

    @property
    def alive(self) -> bool:
        return self.exit_status() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process runs."""
        if self.alive:
            os.kill(self.pid, number)

    def stop(self, grace: float = 20.0) -> int:
        """Send SIGTERM, and SIGKILL after ``grace`` seconds; return the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(grace)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Send SIGKILL and wait for the end; return the exit status."""
        self.signal(signal.SIGKILL)
        return self._process.wait(10)

    def text(self) -> str:
        """Return the output so far."""
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = _TAIL) -> str:
        return "\n".join(self.text().splitlines()[-lines:])


def minimal_environment(*, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that any process needs and ``extra``, so that a user's settings do not affect the tests."""
    kept = (
        "PATH",
        "PYTHONPATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "XDG_CACHE_HOME",
        "VIRTUAL_ENV",
    )
    return {name: os.environ[name] for name in kept if name in os.environ} | dict(extra)


def started_at(pid: int) -> str | None:
    """Return the start time of a process, which distinguishes it from a later process with the same id.

    None if the process does not exist or is a zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def wait_for_end(children: Sequence[Child], timeout: float) -> list[Child]:
    """Wait until all have ended; return those that still run after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while (running := [child for child in children if child.alive]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return running
