"""Model files as they are now, each with its last good content while it is broken.

A file that cannot be parsed, or that has become empty (an editor may be in the middle of saving it), keeps the Models
it had, and the problem is told; a file that is gone takes its Models with it. Of two files with the same Model the
first one counts. A Model without a creationTimestamp was created when it was first seen, in the order of the files.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corral_core.errors import InvalidModel
from corral_core.model import Model
from corral_core.resource import load_models, names_of, serving_digest
from corral_server.local.weights import Weights, WeightsReader

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Listed:
    """A Model of a file. ``modified`` is the file's time in Unix seconds."""

    model: Model
    names: tuple[str, ...]
    digest: str
    modified: float
    weights: Weights


@dataclass(frozen=True, slots=True)
class Listing:
    """All Models, the oldest first, and what is wrong, by file."""

    models: tuple[Listed, ...]
    problems: dict[Path, str]


@dataclass(frozen=True, slots=True)
class _Content:
    stamp: tuple[int, int, int]
    modified: float
    models: tuple[Model, ...]
    problem: str | None


class ModelFiles:
    """``read`` blocks (it may read the headers of weights), and is to be called by one thread at a time."""

    def __init__(self, paths: Iterable[Path], pvc_root: Path) -> None:
        self.paths = tuple(paths)
        self._weights = WeightsReader(pvc_root)
        self._contents: dict[Path, _Content] = {}
        self._first_seen: dict[str, float] = {}

    def read(self) -> Listing:
        """Looks at every file again."""
        problems: dict[Path, str] = {}
        contents: dict[Path, _Content] = {}
        for path in model_files(self.paths):
            content = self._look(path)
            if content is not None:
                contents[path] = content
                if content.problem is not None:
                    problems[path] = content.problem
        self._contents = contents
        return Listing(tuple(self._listed(contents, problems)), problems)

    def _look(self, path: Path) -> _Content | None:
        """The file's content, unchanged when the file is; None when it is gone."""
        known = self._contents.get(path)
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if known is not None and known.stamp == stamp:
                return known
            models, problem = tuple(load_models(path.read_text("utf-8"))), None
        except FileNotFoundError:
            return None
        except (InvalidModel, OSError, UnicodeDecodeError) as error:
            stamp, models, problem = (0, 0, 0), (), str(error)
        if not models:
            problem = problem or "there is no Model in it"
            models = known.models if known is not None else ()
        return _Content(stamp, known.modified if known and problem else _modified(path), models, problem)

    def _listed(self, contents: dict[Path, _Content], problems: dict[Path, str]) -> Sequence[Listed]:
        found: dict[str, Listed] = {}
        now = time.time()
        for path, content in contents.items():
            for model in content.models:
                if model.key in found:
                    problems.setdefault(path, f"the Model {model.key} is in another file too, which counts")
                    continue
                seen = self._first_seen.setdefault(model.key, now + len(found) * 1e-6)
                dated = model if model.created else replace(model, created=seen)
                weights = self._weights.read(model)
                found[model.key] = Listed(dated, names_of(model), serving_digest(model), content.modified, weights)
        self._first_seen = {key: seen for key, seen in self._first_seen.items() if key in found}
        return sorted(found.values(), key=lambda listed: (listed.model.created, listed.model.key))


def model_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and the YAML files in the folders (not below them, none that is hidden), each once."""
    files: dict[Path, None] = {}
    for path in paths:
        files.update(dict.fromkeys(sorted(_inside(path)) if path.is_dir() else [path]))
    return list(files)


def _inside(folder: Path) -> list[Path]:
    try:
        children = list(folder.iterdir())
    except FileNotFoundError:
        return []  # it was removed just now
    return [child for child in children if child.suffix in SUFFIXES and child.name[0] != "." and child.is_file()]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
