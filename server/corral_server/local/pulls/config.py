"""Where local mode keeps pulled weights, and what it finds of Ollama's.

- Without OLLAMA_MODELS the store is ``corral/models`` in the user's cache directory, and Ollama's own default directory
  is read if it exists.
- OLLAMA_MODELS moves the store. It is a folder of its own there, because Ollama removes blobs that it does not know. A
  models directory of Ollama at that place is read.
- Nothing is ever written into the folders of Ollama.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corral_core.base.settings import str_setting

_OLLAMA_FOLDERS = ("manifests", "blobs")
MINE = "corral"


@dataclass(frozen=True, slots=True)
class PullConfig:
    """``store`` is the folder of the store, ``ollama`` a models directory of Ollama, None if there is none.

    ``environment`` has the settings of the network and the credentials of the user.
    """

    store: Path
    ollama: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def also_read(self) -> tuple[Path, ...]:
        """Folders with blobs that are linked instead of downloaded."""
        return (self.ollama / "blobs",) if self.ollama is not None else ()


def pull_config(environ: Mapping[str, str]) -> PullConfig:
    """Build the config."""
    named = str_setting(environ, "OLLAMA_MODELS")
    if named:
        folder = Path(named).expanduser().absolute()
        return PullConfig(folder / MINE, _ollama_folder(folder), environ)
    home = Path(str_setting(environ, "HOME", default=os.path.expanduser("~")))  # noqa: PTH111  # never raises
    cache = Path(str_setting(environ, "XDG_CACHE_HOME"))
    root = cache if cache.is_absolute() else home / ".cache"
    return PullConfig(root / MINE / "models", _ollama_folder(home / ".ollama" / "models"), environ)


def _ollama_folder(folder: Path) -> Path | None:
    """Return the folder if it is a models directory of Ollama."""
    try:
        return folder if all((folder / name).is_dir() for name in _OLLAMA_FOLDERS) else None
    except OSError:
        return None
