"""``corral logs``: the log of the background server, in which the events of all runners are."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import ollama

from corral_core.base.errors import CorralError
from corral_core.base.json_fields import JsonObject
from corral_core.base.names import canonical_name
from corral_core.base.received_json import parse_received_object
from corral_core.model.resource import client_names
from corral_server.local.background.server import BackgroundServer
from corral_server.local.cli.api_client import server_url
from corral_server.local.event_log import MAX_LINE_BYTES, terminal_text
from corral_server.local.files import model_files, readable_models
from corral_server.local.management.config import management_config
from corral_server.local.pulls.config import pull_config
from corral_server.local.runners.process import display_name

_INTERVAL: Final = 0.2
"""Seconds between two reads of a log that is followed."""


class NoLog(CorralError):
    """There is no log to show."""


def show_logs(name: str | None, *, lines: int, follow: bool, raw: bool) -> int:
    """Print the last lines of the log, those of one model if it is named. Raises NoLog."""
    path = BackgroundServer(server_url(ollama.Client()), os.environ).files.log
    if not path.exists():
        raise NoLog(f"{path} does not exist: no command has started a server; `corral serve` logs where it runs")
    wanted = model_filter(name, os.environ)
    stream = _lines(path, follow=follow)
    for line in deque(_until_end(stream, wanted), maxlen=lines):
        print(line if raw else terminal_text(line), flush=True)
    for new in stream if follow else ():
        if new is not None and wanted(new):
            print(new if raw else terminal_text(new), flush=True)
    return 0


def model_filter(name: str | None, environ: Mapping[str, str]) -> Callable[[str], bool]:
    """Return whether a line is about this model, all lines without a name.

    Lines have the name of the Model's resource; ``name`` is that, or a name that clients use of a created Model.
    """
    if name is None:
        return lambda line: True
    resources = {name, *_resources(name, environ)}
    return lambda line: _fields(line).get("model") in resources


def _resources(name: str, environ: Mapping[str, str]) -> Iterator[str]:
    folder = management_config(environ, pull_config(environ).store).folder
    for path in model_files([folder] if folder.is_dir() else []):
        for model in readable_models(path):
            if canonical_name(name) in client_names(model):
                yield display_name(model)


def _fields(line: str) -> JsonObject:
    try:
        return parse_received_object(line.encode(), limit=MAX_LINE_BYTES)
    except ValueError:
        return {}


def _until_end(stream: Iterator[str | None], wanted: Callable[[str], bool]) -> Iterator[str]:
    for line in stream:
        if line is None:
            return
        if wanted(line):
            yield line


def _lines(path: Path, *, follow: bool) -> Iterator[str | None]:
    """Yield the complete lines, and None at the end of the file. Then end, or follow also a log that is renamed."""
    file, rest = path.open(encoding="utf-8", errors="replace"), ""
    try:
        while True:
            while text := file.readline():
                rest += text
                if rest.endswith("\n"):
                    yield rest[:-1]
                    rest = ""
            yield None
            if not follow:
                return
            time.sleep(_INTERVAL)
            if path.exists() and not os.path.samestat(path.stat(), os.fstat(file.fileno())):
                file.close()
                file, rest = path.open(encoding="utf-8", errors="replace"), ""
    finally:
        file.close()
