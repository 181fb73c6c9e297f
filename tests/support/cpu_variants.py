"""Variants of llama.cpp's CPU backend: which one a process loads is chosen by the files that are offered to ggml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from corral_server.runner.llama.library import BACKENDS_SETTING, backend_folder

TEST_BACKENDS_SETTING = "CORRAL_TEST_LLAMA_BACKENDS"
"""Environment variable with a further folder of CPU backends, for a wheel that has only one."""


def offer_variant(name: str, folder: Path) -> dict[str, str]:
    """Return an environment in which llama.cpp has only one CPU variant; ``folder`` is filled with its file.

    The test is skipped when there is no such file, or when this CPU cannot run it.
    """
    file = _find_backend(name)
    if file is None:
        pytest.skip(f"the wheel has no libggml-cpu-{name}.so, and {TEST_BACKENDS_SETTING} is not set")
    shutil.copy(file, folder)
    environment = {**os.environ, BACKENDS_SETTING: str(folder)}
    program = "from corral_server.runner.llama.library import initialize; print(initialize())"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    if "no compute backend" in done.stderr:
        pytest.skip(f"this CPU cannot run the variant {name}")
    assert (done.returncode, done.stdout.strip()) == (0, file.name), done.stderr
    return environment


def _find_backend(name: str) -> Path | None:
    folders = [folder for folder in (os.environ.get(TEST_BACKENDS_SETTING), backend_folder()) if folder]
    files = (Path(folder) / f"libggml-cpu-{name}.so" for folder in folders)
    return next((file for file in files if file.exists()), None)
