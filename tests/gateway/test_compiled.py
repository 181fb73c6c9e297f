"""The gateway that the images run is compiled; what holds of its Python must hold of that.

The tests that say most about requests on their way are run once more, by a pytest of its own whose interpreter finds
the compiled modules first. Nothing else is needed: they ask the gateway over sockets.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scripts import compiled

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(600)]

AGAIN = ("exactly_once", "forward", "front", "fuzz", "limits", "smuggling")
"""Modules of tests/gateway."""


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    if lacking := compiled.lacking():
        reason = f"the gateway cannot be compiled: this machine lacks {' and '.join(lacking)}"
        if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
            pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    return compiled.environment() | {"PYTEST_ADDOPTS": ""}


def test_every_listed_module_is_compiled(environment: dict[str, str]) -> None:
    project = tomllib.loads((compiled.ROOT / "pyproject.toml").read_text())
    listed = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]["compiled"]
    names = [".".join(Path(path).with_suffix("").parts[1:]) for path in listed]
    script = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
    command = [sys.executable, "-c", script, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    files = done.stdout.split()
    assert len(files) == len(names)
    assert all(file.startswith(environment["PYTHONPATH"]) and file.endswith(".so") for file in files)


def test_requests_fare_as_they_do_uncompiled(environment: dict[str, str]) -> None:
    files = [compiled.ROOT / f"tests/gateway/test_{name}.py" for name in AGAIN]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(
        command, cwd=compiled.ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
