"""Check the layout rules of this repository that no other tool checks.

- ``operator/__init__.py`` does not exist: it would shadow the standard library's ``operator`` and break every
  interpreter started in the checkout. Neither does ``server/__init__.py``, for the same reason.
- ``corral_core`` imports the standard library, pyyaml, pydantic and prometheus-client, and nothing else: it is part of
  every process.
- Each client library in ``ADAPTED`` is imported by one module of a part (operator, gateway, runner ...), its adapter.
- A function has at most ``FUNCTION_LINES`` lines and a module at most ``MODULE_LINES``. A module with more than
  ``LONG_MODULE`` lines is a warning: it probably holds two concepts.

- Each file of ``COPIES`` is equal to its original. A chart must not have links to files outside of it: a copied or
  packaged chart would lack them.

usage: guard.py [FOLDER]     Prints the violations and warnings, and exits with 1 if there is a violation.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

LONG_MODULE = 400
MODULE_LINES = 600
FUNCTION_LINES = 45
CORE_IMPORTS = {"yaml", "prometheus_client", "pydantic", "pydantic_core", "typing_extensions", "corral_core"}
ADAPTED = ("kubernetes", "kopf", "llama_cpp", "llguidance", "pynvml", "prometheus_client", "obstore")
COPIES = {"charts/corral/files/corral.dev_models.yaml": "crds/corral.dev_models.yaml"}
"""Files that are copies, and the original of each."""
_SOURCES = ("operator", "server")
_CHECKED = (*_SOURCES, "tests", "bench", "scripts")


def shadows(root: Path) -> Iterator[str]:
    """Yield the ``__init__.py`` files that must not exist."""
    for folder in _SOURCES:
        if (path := root / folder / "__init__.py").exists():
            yield f"{path.relative_to(root)}: delete it: it turns the folder into a package that shadows other modules"


def modules(root: Path, folders: tuple[str, ...]) -> Iterator[tuple[Path, ast.Module, int]]:
    """Yield every Python file under ``folders``: its path relative to ``root``, its syntax tree and its line count."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            yield path.relative_to(root), ast.parse(text, str(path)), text.count("\n")


def imported(tree: ast.Module) -> set[str]:
    """Return the top-level names of all packages that a module imports, anywhere in its code."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found


def part(path: Path) -> str:
    """Return the part of the project that a module belongs to: an operator package, or a process of the server."""
    return "/".join(path.parts[: 3 if path.parts[0] == "server" else 2])


def foreign_imports(root: Path) -> Iterator[str]:
    """Yield imports that the core must not have, and client libraries that a part imports in two modules."""
    adapters: defaultdict[tuple[str, str], list[Path]] = defaultdict(list)
    for path, tree, _ in modules(root, _SOURCES):
        names = imported(tree)
        if "corral_core" in path.parts:
            for name in sorted(names - CORE_IMPORTS - sys.stdlib_module_names):
                yield f"{path}: the core must not import {name}"
        for name in names.intersection(ADAPTED):
            adapters[part(path), name].append(path)
    for (owner, name), users in sorted(adapters.items()):
        if len(users) > 1:
            yield f"{owner}: {name} is imported in {', '.join(map(str, users))}; keep it in one adapter module"


def sizes(root: Path) -> Iterator[str]:
    """Yield modules and functions that are too long."""
    for path, tree, lines in modules(root, _CHECKED):
        if lines > MODULE_LINES:
            yield f"{path}: {lines} lines; split it (at most {MODULE_LINES})"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    yield f"{path}:{node.lineno}: {node.name} has {length} lines (at most {FUNCTION_LINES})"


def long_modules(root: Path) -> Iterator[str]:
    """Yield the modules that are long, but not too long."""
    for path, _, lines in modules(root, _CHECKED):
        if LONG_MODULE < lines <= MODULE_LINES:
            yield f"{path}: warning: {lines} lines; does it hold two concepts?"


def stale_copies(root: Path) -> Iterator[str]:
    """Yield the copies that differ from their originals, or are links to them."""
    for name, source in COPIES.items():
        copy, original = root / name, root / source
        if original.exists() and (copy.is_symlink() or not copy.exists() or copy.read_bytes() != original.read_bytes()):
            yield f"{name}: it must be a copy of {source}: cp {source} {name}"


def violations(root: Path) -> list[str]:
    """Return the violations under ``root``, one line each."""
    return [*shadows(root), *foreign_imports(root), *sizes(root), *stale_copies(root)]


def main() -> int:
    """Print violations and warnings; return the exit code."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    found = violations(root)
    for line in (*found, *long_modules(root)):
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
