"""Source layout: two files that must not exist, and the imports of the core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

THIRD_PARTY = """
import importlib, pkgutil, sys, corral_core
before = set(sys.modules)
for module in pkgutil.walk_packages(corral_core.__path__, "corral_core."):
    importlib.import_module(module.name)
files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
print(*sorted({name.partition(".")[0] for name, file in files.items() if "site-packages" in file}))
"""


@pytest.mark.parametrize("folder", ["operator", "server"])
def test_source_folders_are_not_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists(), (
        f"{folder}/__init__.py makes a package of a folder on the way to the sources; "
        "operator/__init__.py even shadows the standard library's operator in every interpreter started here"
    )


def test_core_imports_only_the_standard_library_pyyaml_pydantic_and_prometheus_client() -> None:
    command = [sys.executable, "-c", THIRD_PARTY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    of_pydantic = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    assert set(done.stdout.split()) - of_pydantic <= {"yaml", "_yaml", "prometheus_client"}
    assert "pydantic" in done.stdout
