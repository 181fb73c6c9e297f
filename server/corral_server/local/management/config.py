"""Configuration of the Models that clients create in local mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral_core.base.settings import str_setting
from corral_server.gateway.management.policy import ANYONE, CreationPolicy

_FOLDER: Final = "created"
_ALL_SOURCES: Final = ("*",)


@dataclass(frozen=True, slots=True)
class ManagementConfig:
    """``folder`` has the files of the created Models."""

    folder: Path
    policy: CreationPolicy


def management_config(environ: Mapping[str, str], store: Path) -> ManagementConfig:
    """Build the config: by default anyone creates Models, from all sources, in a folder of the store.

    Raises InvalidSetting.
    """
    named = str_setting(environ, "CORRAL_MODELS_FOLDER")
    folder = Path(named).expanduser().absolute() if named else store / _FOLDER
    return ManagementConfig(folder, CreationPolicy.from_environment(environ, create=ANYONE, sources=_ALL_SOURCES))
