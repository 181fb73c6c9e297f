"""The compiled gateway of the images behaves as the Python modules do.

The tests of the request path run again in a pytest process whose interpreter finds the compiled modules first. They
talk to the gateway over sockets, so they need no change.
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

AGAIN = (
    "http_server/test_connection",
    "http_server/test_limits",
    "http_server/test_smuggling",
    "proxy/test_forwarder",
    "proxy/test_heartbeat",
    "test_fuzz",
    "upstream/test_retry_safety",
)
"""Modules of tests/gateway that run again."""


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


def test_the_gateways_tests_pass_on_the_compiled_gateway(environment: dict[str, str]) -> None:
    files = [compiled.ROOT / f"tests/gateway/{name}.py" for name in AGAIN]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(
        command, cwd=compiled.ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
