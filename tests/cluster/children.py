"""Child processes that never outlive the tests.

Each is started through ``setpriv --pdeathsig``, so the kernel ends it when the thread that started it dies, however
that happens; start them from a thread that lives as long as they are to. Their output goes to a log file each.
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
    """A process with a name, an own log file and an owner that must call ``stop`` or ``kill``."""

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
        """From here on the kernel ends it with us: setpriv has made its request and become the program.

        The name in ``comm`` would not do: it may still be the parent's when Popen returns.
        """
        setpriv, program = Path(shutil.which("setpriv") or "").resolve(), Path(f"/proc/{self.pid}/exe")
        with suppress(FileNotFoundError):  # it has ended already
            while self.alive and program.readlink() == setpriv:
                time.sleep(0.001)

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    @property
    def alive(self) -> bool:
        return self.exit_status() is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal; nothing when the process has ended."""
        if self.alive:
            os.kill(self.pid, number)

    def stop(self, grace: float = 20.0) -> int:
        """SIGTERM, then SIGKILL after ``grace`` seconds; returns the exit status."""
        self.signal(signal.SIGTERM)
        try:
            return self._process.wait(grace)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL, and waits for the end."""
        self.signal(signal.SIGKILL)
        return self._process.wait(10)

    def text(self) -> str:
        """All that it wrote so far."""
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = _TAIL) -> str:
        return "\n".join(self.text().splitlines()[-lines:])


def minimal_environment(*, extra: Mapping[str, str]) -> dict[str, str]:
    """What a process needs of this machine and no more, so that a person's settings do not reach the tests."""
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
    """The kernel's start time of a process, which tells it from a later one with the same id.

    None when there is no such process, or it has ended and only waits for its parent to notice.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def wait_for_end(children: Sequence[Child], timeout: float) -> list[Child]:
    """Those that still run after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while (running := [child for child in children if child.alive]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return running
