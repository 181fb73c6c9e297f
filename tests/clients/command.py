"""Running the ``ollama`` command at a terminal or in a pipe, and its visible output."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.local.served import START

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[⠀-⣿]|\r")
"""Control sequences and the characters of the spinner."""


@dataclass(frozen=True, slots=True)
class Said:
    """Output without control characters. At a terminal ``out`` has everything."""

    status: int
    out: str
    err: str = ""

    @property
    def rows(self) -> list[list[str]]:
        """Return the rows of a table whose columns are separated by two spaces or a tab."""
        return [re.split(r"\s{2,}|\t", line.strip()) for line in self.out.splitlines() if line.strip()]


@dataclass(frozen=True, slots=True)
class Command:
    """``timeout`` is in seconds."""

    program: Path
    url: str
    home: Path
    timeout: float = START

    def __call__(self, *words: str, stdin: str = "") -> Said:
        """Run it to its end with ``stdin`` in a pipe."""
        done = subprocess.run(
            [str(self.program), *words],
            env=self._environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=self.timeout,
            check=False,
        )
        return Said(done.returncode, _CONTROL.sub("", done.stdout), _CONTROL.sub("", done.stderr))

    def typed(self, *words: str, lines: Sequence[str]) -> Said:
        """Run it at a pseudo-terminal; each line is typed after a prompt."""
        here, there = pty.openpty()
        try:
            process = subprocess.Popen(
                [str(self.program), *words], env=self._environment(), stdin=there, stdout=there, stderr=there
            )
        finally:
            os.close(there)
        try:
            seen = ""
            for line in lines:
                seen += _until(here, ">>> ")
                os.write(here, line.encode() + b"\r")
            seen += _until(here, None)
            return Said(process.wait(self.timeout), _CONTROL.sub("", seen))
        finally:
            process.kill()
            process.wait()
            os.close(here)

    def _environment(self) -> dict[str, str]:
        path = os.environ["PATH"]
        return {"HOME": str(self.home), "OLLAMA_HOST": self.url, "PATH": path, "TERM": "xterm", "OLLAMA_NOHISTORY": "1"}


def _until(terminal: int, prompt: str | None) -> str:
    """Read the output up to the next prompt or the end. The test's timeout ends a process that hangs."""
    seen = b""
    while prompt is None or prompt.encode() not in seen:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # EIO: the process has closed the terminal
            break
        if not piece:
            break
        seen += piece
    return seen.decode("utf-8", "replace")
