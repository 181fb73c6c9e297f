"""The folder and the addresses of one test run, and the clearing of what a killed run left behind.

A run that is killed cannot tidy up: its processes die with it (see children.py), but its folder and the addresses that
it put on the loopback device stay. Each folder's name begins with its process, so the next run finds those whose
process is gone and clears what they recorded. One process may have several: levels of test run side by side in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from tests.cluster.children import started_at

PREFIX = "corral-cluster-"
_NETWORK = "198.18.77"
"""Of the block that RFC 2544 keeps for tests, so nobody's network has these."""


class Workspace:
    """A context: the folder exists within it; at its end folder and addresses are given back."""

    def __init__(self) -> None:
        self.folder = Path()
        self._addresses: list[str] = []

    def __enter__(self) -> Workspace:
        clear_left_over()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{started_at(os.getpid())}-"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _clear(self.folder)

    def take_address(self) -> str:
        """An address of this machine that is not loopback, for this run alone. Needs the right to set addresses."""
        for last in range(10, 250):
            address = f"{_NETWORK}.{last}"
            if address in self._addresses:
                continue
            done = _ip("addr", "add", f"{address}/32", "dev", "lo")
            if done.returncode == 0:
                self._addresses.append(address)
                self._record()
                return address
            if "exists" not in done.stderr and "assigned" not in done.stderr:
                raise OSError(f"ip addr add {address}: {done.stderr.strip()}")
        raise OSError(f"no address is free in {_NETWORK}.0/24")

    def give_address_back(self, address: str) -> None:
        _ip("addr", "del", f"{address}/32", "dev", "lo")
        self._addresses.remove(address)
        self._record()

    def _record(self) -> None:
        (self.folder / "addresses").write_text("\n".join(self._addresses))


def clear_left_over() -> None:
    """Clears after the runs whose process is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid, start, *_ = [*folder.name.removeprefix(PREFIX).split("-"), ""]
        if pid.isdecimal() and started_at(int(pid)) != start:
            _clear(folder)


def _clear(folder: Path) -> None:
    record = folder / "addresses"
    if record.exists():
        for address in record.read_text().split():
            _ip("addr", "del", f"{address}/32", "dev", "lo")
    shutil.rmtree(folder, ignore_errors=True)


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10, check=False)
