"""``corral apply`` and ``corral delete``: Models of files in the folder that the server on this machine serves.

- The commands print what kubectl prints for the same files (kubectl: pkg/cmd/apply/apply.go, pkg/cmd/delete/delete.go).
- Every document is checked before the first file is written.
- A running server sees the changes at once; otherwise the next one does. ``corral apply`` returns when the background
  server lists the Models: a command that follows would have their names pulled.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Final

from corral_core.base.errors import CorralError, InvalidModel
from corral_core.base.json_fields import JsonObject
from corral_core.model.documents import load_documents
from corral_core.model.model import Model
from corral_core.model.name_index import lost_names
from corral_core.model.resource import client_names, parse_model
from corral_server.local.background.server import BackgroundServer
from corral_server.local.cli.api_client import RequestFailed, all_tags, client_errors, connect, server_url
from corral_server.local.files import model_files, readable_models
from corral_server.local.management.config import management_config
from corral_server.local.management.model_documents import (
    complete_document,
    encoded_model,
    file_refused,
    model_path,
    read_documents,
    write_model,
)
from corral_server.local.pulls.config import pull_config

_RESOURCE = "model.corral.dev"
_TIMEOUT: Final = 30.0
_INTERVAL: Final = 0.05
"""Seconds."""
_STANDARD_INPUT = Path("-")


class CannotApply(CorralError):
    """A file has an error; nothing was changed."""


def apply(paths: Sequence[Path], environ: Mapping[str, str]) -> int:
    """Write the Models of the files into the server's folder. Raises CannotApply and ModelRefused."""
    folder = _folder(environ)
    wanted = _wanted(paths)
    _check_names([model for model, _ in wanted.values()], folder)
    for key, (model, document) in wanted.items():
        print(f"{_RESOURCE}/{model.name} {_write(model_path(folder, key), key, document)}")
    _wait_until_listed({client_names(model)[0] for model, _ in wanted.values()}, environ)
    return 0


def delete(paths: Sequence[Path], environ: Mapping[str, str]) -> int:
    """Remove the Models of the files from the server's folder; return 1 if it does not have one of them.

    Raises CannotApply and ModelRefused.
    """
    folder, missing = _folder(environ), 0
    for key, (model, _) in _wanted(paths).items():
        path = model_path(folder, key)
        try:
            path.unlink()
        except FileNotFoundError:
            print(f'Error: {_RESOURCE} "{model.name}" not found in {folder}', file=sys.stderr)
            missing += 1
        except OSError as error:
            raise file_refused(error, path) from error
        else:
            print(f'{_RESOURCE} "{model.name}" deleted')
    return 1 if missing else 0


def _wait_until_listed(names: Set[str], environ: Mapping[str, str]) -> None:
    """Wait until the background server lists these names; a server that does not within ``_TIMEOUT`` is a warning."""
    client = connect(start=False)
    server = BackgroundServer(server_url(client), environ)
    deadline = time.monotonic() + _TIMEOUT
    with contextlib.suppress(RequestFailed), client_errors():  # a server with API keys, or one that ends now
        while server.pid() is not None:
            if names <= {str(tag.get("name")) for tag in all_tags(client)}:
                return
            if time.monotonic() > deadline:
                print("warning: the server does not list the Models yet; see `corral logs`", file=sys.stderr)
                return
            time.sleep(_INTERVAL)


def _folder(environ: Mapping[str, str]) -> Path:
    return management_config(environ, pull_config(environ).store).folder


def _write(path: Path, key: str, document: JsonObject) -> str:
    """Write one Model and return what happened, in kubectl's words."""
    known = read_documents(path).get(key) if path.exists() else None
    if known == document:
        return "unchanged"
    _, data = encoded_model(document)
    try:
        write_model(path, data)
    except OSError as error:
        raise file_refused(error, path) from error
    return "created" if known is None else "configured"


def _wanted(paths: Sequence[Path]) -> dict[str, tuple[Model, JsonObject]]:
    """Return the Models of the files by their keys. Raises CannotApply."""
    found: dict[str, tuple[Model, JsonObject]] = {}
    for label, text in _texts(paths):
        try:
            documents = list(load_documents(text, label=label))
            models = [(parse_model(each), complete_document(each)) for each in documents if isinstance(each, Mapping)]
        except InvalidModel as error:
            raise CannotApply(f"{label}: {error}") from error
        if len(models) != len(documents) or not models:
            raise CannotApply(f"{label}: every document must be a Model")
        for model, document in models:
            if model.key in found:
                raise CannotApply(f"{label}: the Model {model.key} is in the files twice")
            found[model.key] = model, document
    if not found:
        raise CannotApply("no Model file found; name a YAML file or a folder with YAML files")
    return found


def _texts(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file; ``-`` is the standard input. Raises CannotApply."""
    for path in paths:
        if path == _STANDARD_INPUT:
            yield "standard input", sys.stdin.read()
            continue
        for file in model_files([path]):
            try:
                yield str(file), file.read_text("utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise CannotApply(f"{file} cannot be read: {error}") from error


def _check_names(models: Sequence[Model], folder: Path) -> None:
    """Raise CannotApply if a name for clients belongs to another Model of the folder or of the files."""
    keys = {model.key for model in models}
    others = [model for path in model_files([folder] if folder.is_dir() else []) for model in readable_models(path)]
    lost = lost_names([*(model for model in others if model.key not in keys), *models])
    for key, reason in lost.items():
        if key in keys:
            raise CannotApply(f"{key}: {reason}")
