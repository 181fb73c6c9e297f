"""Workspace of one test run: its folder and addresses, and the removal of what a killed run left.

A killed run does not clean up: its processes end with it (``child_processes``), but its folder and its addresses on the
loopback device stay. The name of each folder has the id and start time of its process, so the next run finds those of
ended processes and removes what they recorded. One process may have several workspaces.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.child_processes import started_at

PREFIX = "corral-cluster-"
_NETWORK = "198.18.77"
"""Part of 198.18.0.0/15, which RFC 2544 reserves for benchmarks."""


class Workspace:
    """Context manager: the folder exists within the block; at its end folder and addresses are removed."""

    def __init__(self) -> None:
        self.folder = Path()
        self._addresses: list[str] = []

    def __enter__(self) -> Workspace:
        remove_leftovers()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{started_at(os.getpid())}-"))
        return self

    def __exit__(self, *_: object) -> None:
        _remove(self.folder)

    def take_address(self) -> str:
        """Add an unused address to this machine and return it. Requires the permission to set addresses."""
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

    def release_address(self, address: str) -> None:
        _ip("addr", "del", f"{address}/32", "dev", "lo")
        self._addresses.remove(address)
        self._record()

    def _record(self) -> None:
        (self.folder / "addresses").write_text("\n".join(self._addresses))


def remove_leftovers() -> None:
    """Remove the workspaces of runs whose process has ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid, start, *_ = [*folder.name.removeprefix(PREFIX).split("-"), ""]
        if pid.isdecimal() and started_at(int(pid)) != start:
            _remove(folder)


def _remove(folder: Path) -> None:
    record = folder / "addresses"
    if record.exists():
        for address in record.read_text().split():
            _ip("addr", "del", f"{address}/32", "dev", "lo")
    shutil.rmtree(folder, ignore_errors=True)


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=10, check=False)
