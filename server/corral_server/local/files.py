"""Model files, each with its last valid content while the current one is invalid.

- A file that cannot be parsed, or is empty (an editor may be saving it), keeps its former Models and reports a problem.
- A removed file removes its Models.
- If two files define the same Model, the first one counts and the other reports a problem.
- The creation time of a Model without a creationTimestamp is when it was first read, in the order of the files.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corral_core.base.errors import InvalidModel
from corral_core.model.model import Model, ModelSpec
from corral_core.model.resource import client_names, load_models, runner_spec_digest
from corral_core.sources.locate import WeightsRoots
from corral_core.sources.snapshot import Snapshot
from corral_server.local.metadata import MetadataReader, Weights, nothing_pulled

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A Model in a file. ``modified`` is the file's modification time in Unix seconds.

    ``pulling`` are the sources that must be pulled before the Model in the file is served: those that its weights lack,
    or while an earlier version is served (``held_back``), those of the present one, whose spec is ``latest`` then.
    """

    model: Model
    names: tuple[str, ...]
    digest: str
    modified: float
    weights: Weights
    pulling: tuple[str, ...] = ()
    latest: ModelSpec | None = None

    @property
    def servable(self) -> bool:
        """Whether all of the Model's sources are on this machine."""
        return not self.weights.missing


def held_back(models: Sequence[ListedModel], served: Mapping[str, ListedModel]) -> tuple[ListedModel, ...]:
    """Return the Models to serve: of one whose new source is not pulled yet, the version that is served already."""
    return tuple(_held_back(listed, served.get(listed.model.key)) for listed in models)


def _held_back(listed: ListedModel, served: ListedModel | None) -> ListedModel:
    if listed.servable or served is None or not served.servable or served.weights.problem is not None:
        return listed
    return replace(served, pulling=listed.pulling, latest=listed.model.spec)


@dataclass(frozen=True, slots=True)
class ModelListing:
    """All Models, oldest first, and the problems by file."""

    models: tuple[ListedModel, ...]
    problems: dict[Path, str]


@dataclass(frozen=True, slots=True)
class _Content:
    stamp: tuple[int, int, int]
    modified: float
    models: tuple[Model, ...]
    problem: str | None


class ModelFiles:
    """Reads Model files. ``read`` blocks (it can read GGUF headers); call it from one thread at a time.

    ``snapshot`` returns what a source was pulled as into ``roots.store``.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        roots: WeightsRoots,
        snapshot: Callable[[str], Snapshot | None] = nothing_pulled,
    ) -> None:
        self.paths = tuple(paths)
        self._weights = MetadataReader(roots, snapshot)
        self._contents: dict[Path, _Content] = {}
        self._first_seen: dict[str, float] = {}

    def read(self) -> ModelListing:
        """Read every file that changed."""
        problems: dict[Path, str] = {}
        contents: dict[Path, _Content] = {}
        for path in model_files(self.paths):
            content = self._read_file(path)
            if content is not None:
                contents[path] = content
                if content.problem is not None:
                    problems[path] = content.problem
        self._contents = contents
        return ModelListing(tuple(self._listed(contents, problems)), problems)

    def file_of(self, key: str) -> Path | None:
        """Return the file that defines the Model ``namespace/name``, as of the last read."""
        contents = self._contents.items()
        return next((path for path, content in contents if any(model.key == key for model in content.models)), None)

    def _read_file(self, path: Path) -> _Content | None:
        """Return the file's content, the known one if the file did not change; None if the file is gone."""
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
            problem = problem or "the file has no Model"
            models = known.models if known is not None else ()
        return _Content(stamp, known.modified if known and problem else _modified(path), models, problem)

    def _listed(self, contents: dict[Path, _Content], problems: dict[Path, str]) -> Sequence[ListedModel]:
        found: dict[str, ListedModel] = {}
        now = time.time()
        for path, content in contents.items():
            for model in content.models:
                if model.key in found:
                    problems.setdefault(
                        path, f"the Model {model.key} is already defined in another file; remove one of the two"
                    )
                    continue
                seen = self._first_seen.setdefault(model.key, now + len(found) * 1e-6)
                dated = model if model.created else replace(model, created=seen)
                weights = self._weights.read(model)
                found[model.key] = ListedModel(
                    dated,
                    client_names(model),
                    _serving_digest(model, weights),
                    content.modified,
                    weights,
                    pulling=weights.missing,
                )
        self._first_seen = {key: seen for key, seen in self._first_seen.items() if key in found}
        return sorted(found.values(), key=lambda listed: (listed.model.created, listed.model.key))


def _serving_digest(model: Model, weights: Weights) -> str:
    """Return a digest of what a runner of the Model depends on: its spec and the snapshots of its sources."""
    digest = runner_spec_digest(model)
    if not weights.snapshots:
        return digest
    return hashlib.sha256(json.dumps([digest, sorted(weights.snapshots.items())]).encode()).hexdigest()


def model_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files and the YAML files directly in the folders (no hidden ones), each once."""
    files: dict[Path, None] = {}
    for path in paths:
        files.update(dict.fromkeys(sorted(_yaml_files(path)) if path.is_dir() else [path]))
    return list(files)


def readable_models(path: Path) -> list[Model]:
    """Return the Models of a file, none if it cannot be read or has errors."""
    try:
        return load_models(path.read_text("utf-8"))
    except (InvalidModel, OSError, UnicodeDecodeError):
        return []


def _yaml_files(folder: Path) -> list[Path]:
    try:
        children = list(folder.iterdir())
    except FileNotFoundError:
        return []  # the folder was removed meanwhile
    return [child for child in children if child.suffix in SUFFIXES and child.name[0] != "." and child.is_file()]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
