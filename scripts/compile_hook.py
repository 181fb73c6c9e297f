"""Build hook that compiles the modules of the gateway's request path to C, with mypyc, for the wheel of the images.

- It is off unless HATCH_BUILD_HOOK_ENABLE_CUSTOM is set: a checkout stays plain Python and needs no compiler.
- ``compiled`` in pyproject.toml lists the modules. Their Python source stays in the wheel, for tracebacks.
- Nothing is written into the checkout.
- mypyc does not use the types of third-party packages, so the result depends only on the sources, mypy and the
  compiler, and not on installed packages.
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
    """Adds the compiled modules to the wheel, which is then specific to this Python version and platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # hatchling's signature
        if version == "editable":
            return
        self._work = Path(tempfile.mkdtemp(prefix="corral-compile-"))
        try:
            compile_modules(Path(self.root), self.config["compiled"], work=self._work)
        except BaseException:  # KeyboardInterrupt as well: hatchling calls ``finalize`` only after success
            self._remove_work()
            raise
        build_data["infer_tag"], build_data["pure_python"] = True, False
        build_data["force_include"].update(_libraries(self._work))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # hatchling's signature
        if version != "editable":
            self._remove_work()

    def _remove_work(self) -> None:
        shutil.rmtree(self._work)


def compile_modules(root: Path, modules: list[str], *, work: Path) -> None:
    """Compile ``modules``, paths below ``root``, into libraries in the folder ``work``.

    Raises RuntimeError with the last lines of the compilers' output.
    """
    for folder in ROOTS:  # relative paths: tracebacks do not contain the location of the checkout
        (work / folder).symlink_to(root / folder)
    command = [sys.executable, "-c", _SETUP, "build_ext", "--build-lib=lib", "--build-temp=o"]
    command.append(json.dumps([*_ARGUMENTS, *modules]))
    environment = os.environ | {"MYPYPATH": os.pathsep.join(ROOTS)}
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise RuntimeError(f"the gateway could not be compiled:\n{output}")


def _libraries(work: Path) -> Iterator[tuple[str, str]]:
    """Yield the path of each library, and its path in the wheel."""
    lib = work / "lib"
    for path in sorted(lib.rglob("*.so")):
        yield str(path), str(path.relative_to(lib))


def get_build_hook() -> type[CompileHook]:
    """Return the hook; hatchling calls this function."""
    return CompileHook
