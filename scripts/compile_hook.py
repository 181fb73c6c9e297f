"""The build's hook that compiles the gateway's busy modules to C, with mypyc, when a wheel is made for the images.

Off unless HATCH_BUILD_HOOK_ENABLE_CUSTOM is set: a checkout stays editable and plain Python, and needs no compiler. The
same files run both ways. ``compiled`` in pyproject.toml lists them; their Python comes along, for tracebacks and for
those who read. Nothing is written into the checkout.

Third-party packages are left out of the types that are compiled for, so that the result depends on the sources, mypy
and the compiler, and not on what is installed beside them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOTS = ("operator", "server")
_SETUP = """
import json, sys
from mypyc.build import mypycify
from setuptools import setup
arguments = json.loads(sys.argv.pop())
modules = mypycify(arguments, opt_level="2", debug_level="0", group_name="corral", target_dir="c")
setup(name="corral", packages=[], ext_modules=modules)
"""
_ARGUMENTS = (
    "--config-file=",
    "--cache-dir=types",
    "--no-site-packages",
    "--ignore-missing-imports",
    "--explicit-package-bases",
)


class CompileHook(BuildHookInterface[BuilderConfig]):
    """Adds the compiled modules to the wheel, which is for this Python and machine alone then."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # hatchling's signature
        if version == "editable":
            return
        self._work = Path(tempfile.mkdtemp(prefix="corral-compile-"))
        try:
            compile_modules(Path(self.root), self.config["compiled"], work=self._work)
        except BaseException:  # an interruption as well: hatchling calls ``finalize`` only after success
            self._forget()
            raise
        build_data["infer_tag"], build_data["pure_python"] = True, False
        build_data["force_include"].update(_libraries(self._work))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # hatchling's signature
        if version != "editable":
            self._forget()

    def _forget(self) -> None:
        shutil.rmtree(self._work)


def compile_modules(root: Path, modules: list[str], *, work: Path) -> None:
    """Leaves the libraries in the folder ``work``. ``modules`` are paths below ``root``.

    Raises RuntimeError with the last lines of what the compilers say.
    """
    for folder in ROOTS:  # there, the paths in tracebacks do not depend on where the checkout is
        (work / folder).symlink_to(root / folder)
    command = [sys.executable, "-c", _SETUP, "build_ext", "--build-lib=lib", "--build-temp=o"]
    command.append(json.dumps([*_ARGUMENTS, *modules]))
    environment = os.environ | {"MYPYPATH": os.pathsep.join(ROOTS)}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise RuntimeError(f"the gateway could not be compiled:\n{said}")


def _libraries(work: Path) -> Iterator[tuple[str, str]]:
    """Where each library is, and where in the wheel it belongs."""
    lib = work / "lib"
    for path in sorted(lib.rglob("*.so")):
        yield str(path), str(path.relative_to(lib))


def get_build_hook() -> type[CompileHook]:
    """What hatchling asks for."""
    return CompileHook
