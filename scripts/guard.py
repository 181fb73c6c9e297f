"""Holds what no other tool checks: the rules of the layout that are cheap to break and costly to find.

* ``operator/__init__.py`` would shadow the standard library's ``operator`` and kill every interpreter that is started
  in the checkout; ``server/__init__.py`` is its neighbour.
* The core imports the standard library, pyyaml and pydantic (with what pydantic itself is made of), nothing else: it
  runs in every process.
* Each client that needs care (``ADAPTED``) is imported in one module of a package, its adapter.
* A module stays under ``MODULE_LINES`` lines and a function under ``FUNCTION_LINES``.

Run from anywhere: ``python scripts/guard.py [FOLDER]`` prints each broken rule on a line and exits with 1.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

MODULE_LINES = 350
FUNCTION_LINES = 45
CORE_IMPORTS = {"yaml", "pydantic", "pydantic_core", "typing_extensions", "corral_core"}
ADAPTED = ("kubernetes", "kopf", "llama_cpp", "pynvml")
_SOURCES = ("operator", "server")
_CHECKED = (*_SOURCES, "tests", "bench", "scripts")


def shadows(root: Path) -> Iterator[str]:
    for folder in _SOURCES:
        if (path := root / folder / "__init__.py").exists():
            yield f"{path.relative_to(root)}: delete it; it makes the folder a package that shadows other modules"


def modules(root: Path, folders: tuple[str, ...]) -> Iterator[tuple[Path, ast.Module, int]]:
    """Every Python file under ``folders``: its path relative to ``root``, its tree and its number of lines."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            yield path.relative_to(root), ast.parse(text, str(path)), text.count("\n")


def imported(tree: ast.Module) -> set[str]:
    """The top-level names of all packages that a module imports, wherever in the module it does."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def foreign_imports(root: Path) -> Iterator[str]:
    adapters: defaultdict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path, tree, _ in modules(root, _SOURCES):
        names = imported(tree)
        if "corral_core" in path.parts:
            for name in sorted(names - CORE_IMPORTS - sys.stdlib_module_names):
                yield f"{path}: the core must not import {name}"
        for name in names.intersection(ADAPTED):
            adapters[path.parent, name].append(path)
    for (package, name), users in sorted(adapters.items()):
        if len(users) > 1:
            yield f"{package}: {name} is imported in {', '.join(p.name for p in users)}; one adapter module is enough"


def sizes(root: Path) -> Iterator[str]:
    for path, tree, lines in modules(root, _CHECKED):
        if lines > MODULE_LINES:
            yield f"{path}: {lines} lines; split it (at most {MODULE_LINES})"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    yield f"{path}:{node.lineno}: {node.name} has {length} lines (at most {FUNCTION_LINES})"


def broken(root: Path) -> list[str]:
    """Every broken rule under ``root``, one line each."""
    return [*shadows(root), *foreign_imports(root), *sizes(root)]


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    lines = broken(root)
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
