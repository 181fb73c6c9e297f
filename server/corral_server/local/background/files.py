"""Files of the background server: the folder of its state, its log and its process id.

Each port has files of its own, so that several servers can run at the same time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corral_core.base.settings import str_setting

MAX_LOG_BYTES = 10 * 2**20
"""Size from which on the next start of the server renames the log."""


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """Paths of one background server."""

    log: Path
    pid: Path

    def rotate_log(self) -> None:
        """Rename a log of more than ``MAX_LOG_BYTES``; the one that was renamed before is lost. Raises OSError."""
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))


def server_files(environ: Mapping[str, str], port: int) -> ServerFiles:
    """Return the files of the server at this port."""
    folder = state_folder(environ)
    return ServerFiles(folder / f"server-{port}.log", folder / f"server-{port}.pid")


def state_folder(environ: Mapping[str, str]) -> Path:
    """Return CORRAL_STATE_FOLDER, or ``corral`` in the user's folder for state (XDG Base Directory Specification).

    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    named = str_setting(environ, "CORRAL_STATE_FOLDER")
    if named:
        return Path(named).expanduser().absolute()
    state = Path(str_setting(environ, "XDG_STATE_HOME"))
    home = Path(str_setting(environ, "HOME", default=os.path.expanduser("~")))  # noqa: PTH111  # never raises
    return (state if state.is_absolute() else home / ".local" / "state") / "corral"
